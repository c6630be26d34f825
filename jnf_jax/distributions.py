"""Likelihoods and Gaussians as functions on arrays. The likelihoods themselves are in `likelihoods/`, a file each.

Records of arrays pass between functions; distrax's distributions, which are no pytrees that `jit` could return, live for the length of one call. They are
imported where one is needed: distrax takes as long to import as jax, and most trainings do without.
"""

import jax
import jax.numpy as jnp
from jax.scipy.stats import laplace, norm

from jnf_jax import configs, types
from jnf_jax import specs as specs_lib
from jnf_jax.likelihoods import base
from jnf_jax.likelihoods import gaussian as gaussian_likelihood

_8BIT = 255.0


def canonical(spec: specs_lib.ModalitySpec, x: types.Array) -> types.Array:
    """Returns data as likelihoods take it: 8-bit integers of a bounded real modality scaled onto its support, floats otherwise.

    Args:
      spec: the modality.
      x: `[.., *shape]`.

    Raises:
      ValueError: if the trailing axes are not the modality's shape, or a bounded real modality has integers other than uint8.
    """
    x = jnp.asarray(x)
    if x.shape[x.ndim - len(spec.shape) :] != spec.shape:
        raise ValueError(f"Expected data of shape (.., {', '.join(map(str, spec.shape))}), got {x.shape}.")
    if spec.values == "categories":
        if jnp.issubdtype(x.dtype, jnp.floating):
            x = jnp.where(x == jnp.floor(x), x, -1)  # NaN is no category
        return x.astype(jnp.int32)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        if spec.values == "reals" and spec.support is not None:
            if x.dtype != jnp.uint8:
                raise ValueError(f"Expected floats or uint8 for a modality with a support, got {x.dtype}.")
            low, high = spec.support
            return low + x.astype(jnp.float32) * ((high - low) / _8BIT)
        x = x.astype(jnp.float32)
    return x


def network_input(spec: specs_lib.ModalitySpec, x: types.Array) -> types.Array:
    """Returns floats `[.., *input_shape]`, what an encoder is given: categories are one-hot, counts log(1 + x).

    What is no category is NaN.
    """
    x = canonical(spec, x)
    match spec.values:
        case "categories":
            known = (x >= 0) & (x < spec.num_categories)
            return jnp.where(known[..., None], jax.nn.one_hot(x, spec.num_categories), jnp.nan)
        case "counts":
            return jnp.log1p(x)
    return x


def _likelihood(spec: specs_lib.ModalitySpec) -> base.Likelihood:
    found = configs.build(spec.likelihood_config, spec)
    if (spec.values == "categories") != (found.probabilities is not None):
        raise ValueError(
            f"Expected `probabilities` of a likelihood if, and only if, its values are categories, got {found.probabilities} of "
            f"{spec.likelihood_name}, whose values are {spec.values}."
        )
    return found


def link(spec: specs_lib.ModalitySpec, raw: types.Array) -> types.Array:
    """Maps a decoder's unbounded outputs `[.., *parameter_shape]` to the likelihood's parameters."""
    return _likelihood(spec).link(raw)


def log_likelihood(spec: specs_lib.ModalitySpec, parameters: types.Array, x: types.Array) -> types.Array:
    """Returns log p(x | parameters), summed over the modality's own axes.

    Args:
      spec: the modality.
      parameters: `[.., *parameter_shape]`, from `link`.
      x: `[.., *shape]`, canonical.

    Returns:
      `[..]`, in nats.
    """
    return _likelihood(spec).log_prob(parameters, x)


def mean(spec: specs_lib.ModalitySpec, parameters: types.Array) -> types.Array:
    """Returns the mean of the likelihood `[.., *shape]`; the most probable category for a categorical one.

    Counts given their total are those of an example whose total is the spec's library.
    """
    return _likelihood(spec).mean(parameters)


def sample(spec: specs_lib.ModalitySpec, key: types.Array, parameters: types.Array) -> types.Array:
    """Returns a draw of the likelihood `[.., *shape]`: what could be observed, where `mean` is what is expected.

    Reals are not cut off at the ends of a support. Counts given their total are those of an example whose total is near the spec's library.

    Args:
      spec: the modality.
      key: of the draw.
      parameters: `[.., *parameter_shape]`, from `link`, as a model's `decode` returns them.
    """
    return _likelihood(spec).sample(key, parameters)


def probabilities(spec: specs_lib.ModalitySpec, parameters: types.Array) -> types.Array:
    """Returns the probability of each category `[.., *shape, num_categories]`.

    Args:
      spec: a modality of categories.
      parameters: `[.., *parameter_shape]`, from `link`.

    Raises:
      ValueError: if its values are no categories.
    """
    if spec.values != "categories":
        raise ValueError(f"Expected a modality of categories, got one of {spec.values}.")
    return _likelihood(spec).probabilities(parameters)


def gaussian_log_prob(gaussian: types.Gaussian, z: types.Array) -> types.Array:
    """Returns the log density `[..]` at z `[.., D]`."""
    if gaussian.lower is None:
        return gaussian_likelihood.log_prob(gaussian.loc, gaussian.scale, z).sum(-1)
    import distrax

    factor = gaussian.scale[..., None] * (jnp.eye(z.shape[-1], dtype=z.dtype) + gaussian.lower)
    return distrax.MultivariateNormalTri(gaussian.loc, factor).log_prob(z)


def gaussian_sample(key: types.Array, gaussian: types.Gaussian) -> types.Array:
    """Returns one draw, of the shape of `gaussian.loc`."""
    noise = jax.random.normal(key, gaussian.loc.shape, gaussian.loc.dtype)
    if gaussian.lower is not None:
        noise = noise + jnp.einsum("...ij,...j->...i", gaussian.lower, noise)
    return gaussian.loc + gaussian.scale * noise


def standard_normal_log_prob(z: types.Array) -> types.Array:
    """Returns log N(z; 0, I), summed over the last axis."""
    return norm.logpdf(z).sum(-1)


def kl_to_standard_normal(gaussian: types.Gaussian) -> types.Array:
    """Returns KL(q || N(0, I)) `[..]`."""
    loc, scale, lower = gaussian
    variance = scale**2 if lower is None else scale**2 * (1 + (lower**2).sum(-1))
    return 0.5 * (loc**2 + variance - 1 - 2 * jnp.log(scale)).sum(-1)


def kl_between(first: types.Gaussian, second: types.Gaussian) -> types.Array:
    """Returns KL(first || second) `[..]` of Gaussians with diagonal covariances."""
    ratio = first.scale / second.scale
    shift = (first.loc - second.loc) / second.scale
    return 0.5 * (ratio**2 + shift**2 - 1 - 2 * jnp.log(ratio)).sum(-1)


FAMILIES = ("gaussian", "laplace")


def family_log_prob(family: str, parameters: types.Gaussian, z: types.Array) -> types.Array:
    """Returns the log density `[..]` at z `[.., D]` of independent Gaussian or Laplace variables with that location and scale.

    Raises:
      ValueError: if the family is unknown.
    """
    match family:
        case "gaussian":
            return gaussian_log_prob(parameters, z)
        case "laplace":
            return laplace.logpdf(z, parameters.loc, parameters.scale).sum(-1)
    raise ValueError(f"Expected a family of {FAMILIES}, got {family!r}.")


def family_sample(family: str, key: types.Array, parameters: types.Gaussian) -> types.Array:
    """Returns one draw of that family, of the shape of `parameters.loc`.

    Raises:
      ValueError: if the family is unknown.
    """
    match family:
        case "gaussian":
            return gaussian_sample(key, parameters)
        case "laplace":
            noise = jax.random.laplace(key, parameters.loc.shape, parameters.loc.dtype)
            return parameters.loc + parameters.scale * noise
    raise ValueError(f"Expected a family of {FAMILIES}, got {family!r}.")


def standard(shape: tuple[int, ...], dtype=None) -> types.Gaussian:
    """Returns location 0 and scale 1 of a shape: the prior of either family."""
    return types.Gaussian(jnp.zeros(shape, dtype), jnp.ones(shape, dtype))
