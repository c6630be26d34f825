"""What models have in common whose posterior given any subset of the modalities is drawn exactly.

Such a model encodes each observed modality alone and combines the encodings into q(z | x_S) (a product of Gaussians, a mixture). From
this, its decoders and its prior everything else of `base.Model` follows:

    log p(x_S)  >=  E log (1/K) sum_k p(z_k) prod_{j in S} p(x_j | z_k) / q(z_k | x_S),    z_k ~ q(z | x_S)

is the importance-sampled likelihood; K = 1 is the ELBO.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jnf_jax import compiling, distributions, objectives, types
from jnf_jax.models import base
from jnf_jax.networks import modalities
from jnf_jax.posteriors import mixture as mixtures


@dataclasses.dataclass(frozen=True)
class Posterior:
    """q(z | x_S) of a batch, while a function of it is traced.

    Attributes:
      sample: (key) -> one draw of each observation's posterior, leaves `[B, D]`.
      log_prob: z, leaves `[.., 1 or B, D]`, -> the normalised log density `[.., B]`.
      kl: KL(q || p) `[B]` where it has a closed form, None elsewhere.
    """

    sample: Callable[[types.Array], Any]
    log_prob: Callable[[Any], types.Array]
    kl: types.Array | None = None


@dataclasses.dataclass(frozen=True)
class Prior:
    """p(z), which may have parameters.

    Attributes:
      sample: (params, key, num_samples) -> z, leaves `[S, D]`.
      log_prob: (params, z, leaves `[.., D]`) -> `[..]`.
    """

    sample: Callable[[types.Params, types.Array, int], Any]
    log_prob: Callable[[types.Params, Any], types.Array]


@dataclasses.dataclass(frozen=True)
class Parts:
    """What the functions below are made of; no parameters.

    Attributes:
      modalities: the networks.
      latent_dim: D, of all codes together where there are several.
      prior: p(z).
      encode: (params, name, x `[B, *shape]`) -> what one modality says of z, leaves `[B, ..]`.
      combine: (params, encodings of the observed modalities, leaves `[|S|, B, ..]`, their numbers in order `[|S|]`) -> q(z | x_S).
      encode_whole: (params, data) -> q(z | X) where all modalities are observed; None: `combine` serves there too.
      decode: (params, z) -> modality -> likelihood parameters.
    """

    modalities: modalities.Modalities
    latent_dim: int
    prior: Prior
    encode: Callable[[types.Params, str, types.Array], Any]
    combine: Callable[[types.Params, Any, types.Array], Posterior]
    decode: Callable[[types.Params, Any], types.Batch]
    encode_whole: Callable[[types.Params, types.Batch], Posterior] | None = None


def build(config: Any, parts: Parts, init: Callable[[types.Array], types.Params], stages: Sequence[base.Stage]) -> base.Model:
    """Returns the model of a config."""
    return base.Model(
        config=config,
        specs=parts.modalities.specs,
        latent_dim=parts.latent_dim,
        init=init,
        stages=tuple(stages),
        sample_prior=jax.jit(
            lambda params, key, *, num_samples: parts.prior.sample(params, key, num_samples), static_argnames="num_samples"
        ),
        sample_posterior=make_sampler(parts),
        posterior_log_density=jax.jit(lambda params, observed, z: posterior(parts, params, observed).log_prob(z)),
        decode=base.make_decode(parts.decode, parts.latent_dim),
        log_likelihood=jax.jit(functools.partial(log_likelihood, parts), static_argnames="num_importance"),
        elbo=jax.jit(functools.partial(elbo, parts)),
        prior_log_density=jax.jit(parts.prior.log_prob),
    )


def gaussian_posterior(gaussian: types.Gaussian) -> Posterior:
    """Returns a Gaussian as a posterior, beside a standard normal prior."""
    return Posterior(
        sample=lambda key: distributions.gaussian_sample(key, gaussian),
        log_prob=lambda z: distributions.gaussian_log_prob(gaussian, z),
        kl=distributions.kl_to_standard_normal(gaussian),
    )


def mixture_posterior(mixture: mixtures.Mixture, *, family: str = "gaussian") -> Posterior:
    """Returns a mixture as a posterior."""
    return Posterior(
        sample=lambda key: mixtures.sample(key, mixture, family=family),
        log_prob=lambda z: mixtures.log_prob(mixture, z, family=family),
    )


def standard_prior(dim: int, *, family: str = "gaussian") -> Prior:
    """Returns the prior of location 0 and scale 1 in `dim` dimensions."""
    return Prior(
        sample=lambda params, key, num: distributions.family_sample(family, key, distributions.standard((num, dim))),
        log_prob=lambda params, z: distributions.family_log_prob(family, distributions.standard(z.shape[-1:], z.dtype), z),
    )


def posterior(parts: Parts, params: types.Params, observed: types.Batch) -> Posterior:
    """Returns q(z | x_S).

    Raises:
      ValueError: if nothing is observed, or a modality is unknown or of the wrong shape.
    """
    observed = _checked(parts, observed)
    names = parts.modalities.names
    if parts.encode_whole is not None and len(observed) == len(names):
        return parts.encode_whole(params, observed)
    encodings = [parts.encode(params, name, x) for name, x in observed.items()]
    return parts.combine(params, _stacked(encodings), jnp.asarray([names.index(name) for name in observed]))


def make_sampler(parts: Parts):
    """Returns `sample_posterior(params, key, observed, *, num_samples)` -> (z, leaves `[S, B, D]`, Info of exact draws).

    Encoders run once per observation; the rest is compiled once for each number of observed modalities, whichever they are.

    Raises (the function returned):
      ValueError: if nothing is observed, a modality is unknown or of the wrong shape, or no sample is asked for.
    """
    names = parts.modalities.names
    encode = jax.jit(compiling.in_pieces(parts.encode), static_argnums=1)

    def draws(posterior, key, num_samples):
        z = jax.vmap(posterior.sample)(jax.random.split(key, num_samples))
        return z, types.exact_info(z)

    @functools.partial(jax.jit, static_argnames="num_samples")
    def from_whole(params, key, observed, *, num_samples):
        return draws(parts.encode_whole(params, observed), key, num_samples)

    @functools.partial(jax.jit, static_argnames="num_samples")
    def from_encodings(params, key, encodings, indices, *, num_samples):
        return draws(parts.combine(params, encodings, indices), key, num_samples)

    def sample_posterior(params, key, observed, *, num_samples):
        observed = _checked(parts, observed)
        if num_samples < 1:
            raise ValueError(f"Expected at least one sample, got {num_samples}.")
        if parts.encode_whole is not None and len(observed) == len(names):
            return from_whole(params, key, observed, num_samples=num_samples)
        encodings = _stacked([encode(params, name, x) for name, x in observed.items()])
        indices = jnp.asarray([names.index(name) for name in observed])
        return from_encodings(params, key, encodings, indices, num_samples=num_samples)

    return sample_posterior


def log_joint(parts: Parts, params: types.Params, data: types.Batch, z: Any) -> types.Array:
    """Returns sum_{j in S} log p(x_j | z) `[B]` at z, leaves `[B, D]`; `data` is canonical."""
    terms = objectives.log_likelihoods(parts.modalities.specs, parts.decode(params, z), data)
    return sum(terms.values())


def log_likelihood(
    parts: Parts, params: types.Params, key: types.Array, observed: types.Batch, *, num_importance: int
) -> types.Array:
    """Returns log p(x_S) `[B]` of any subset by importance sampling from q(z | x_S).

    Raises:
      ValueError: if nothing is observed, or no importance sample is asked for.
    """
    proposal = posterior(parts, params, observed)
    data = parts.modalities.canonical(_checked(parts, observed))

    def log_weight(key):
        z = proposal.sample(key)
        return log_joint(parts, params, data, z) + parts.prior.log_prob(params, z) - proposal.log_prob(z)

    return objectives.importance_estimate(key, log_weight, num_importance=num_importance)


def elbo(parts: Parts, params: types.Params, key: types.Array, observed: types.Batch) -> types.Array:
    """Returns a one-draw estimate `[B]` of the ELBO of what is observed, at beta = 1 and without rescaling."""
    proposal = posterior(parts, params, observed)
    data = parts.modalities.canonical(_checked(parts, observed))
    z = proposal.sample(key)
    kl = proposal.log_prob(z) - parts.prior.log_prob(params, z) if proposal.kl is None else proposal.kl
    return log_joint(parts, params, data, z) - kl


def _checked(parts: Parts, observed: types.Batch) -> types.Batch:
    observed = parts.modalities.ordered(observed)
    if not observed:
        raise ValueError("Expected at least one observed modality; draws of the prior are `sample_prior`.")
    return observed


def _stacked(encodings: Sequence[Any]) -> Any:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *encodings)
