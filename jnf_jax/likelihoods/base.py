"""The contract of a likelihood: p(x | parameters) of one modality, where a decoder returns the parameters.

A file exports `Config`, which extends the one below, and `build(config, spec) -> Likelihood`. A spec names its likelihood by such a config. The
five that `specs.LIKELIHOODS` lists can be named by a string too. What a likelihood needs beside its config it takes from the spec: a scale, a
support, the number of categories, a library.
"""

import dataclasses
from collections.abc import Callable
from typing import ClassVar

import jax

from jnf_jax import configs, types
from jnf_jax import specs as specs_lib


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(configs.Component):
    """Base of the configs of likelihoods.

    Attributes:
      values: what it is a distribution of, one of `specs.VALUES`; data are checked, standardised, given to encoders and drawn accordingly.
      standardised: of reals, whether readers may shift and scale them; not where values must be positive, for instance.
      given_total: of counts, whether it says how an example's total is shared out; it then needs the spec's `library`, the total of what is
        generated.
    """

    values: ClassVar[specs_lib.Values] = "reals"
    standardised: ClassVar[bool] = True
    given_total: ClassVar[bool] = False

    def parameter_shape(self, spec: specs_lib.ModalitySpec) -> tuple[int, ...]:
        """Returns the shape of what a decoder returns for one example: here one number for each value."""
        return spec.shape


@dataclasses.dataclass(frozen=True)
class Likelihood:
    """Pure functions of one likelihood.

    Attributes:
      link: raw outputs of a decoder `[.., *parameter_shape]`, any finite numbers -> parameters of that shape.
      log_prob: (parameters, x `[.., *shape]`) -> log p(x | parameters) `[..]` in nats, normalised; leading axes broadcast.
      mean: parameters -> the mean `[.., *shape]`; the most probable one of categories.
      sample: (key, parameters) -> a draw `[.., *shape]`.
      probabilities: of categories alone, parameters -> the probability of each `[.., *shape, num_categories]`.
    """

    link: Callable[[types.Array], types.Array]
    log_prob: Callable[[types.Array, types.Array], types.Array]
    mean: Callable[[types.Array], types.Array]
    sample: Callable[[types.Array, types.Array], types.Array]
    probabilities: Callable[[types.Array], types.Array] | None = None


def own_axes(spec: specs_lib.ModalitySpec) -> tuple[int, ...]:
    """Returns the axes of one example, from the last: what `log_prob` sums over."""
    return tuple(range(-len(spec.shape), 0))


def onto_support(spec: specs_lib.ModalitySpec, raw: types.Array) -> types.Array:
    """Returns locations inside the support of a modality of reals, by a sigmoid; as they are where it has none."""
    if spec.support is None:
        return raw
    low, high = spec.support
    return low + (high - low) * jax.nn.sigmoid(raw)


def around_locations(
    spec: specs_lib.ModalitySpec,
    log_prob: Callable[[types.Array, float, types.Array], types.Array],
    noise: Callable[..., types.Array],
) -> Likelihood:
    """Returns a likelihood of independent reals, each a location and noise of the spec's scale. Draws are not cut off at the ends of a support.

    Args:
      spec: the modality.
      log_prob: (locations, scale, x) -> the log density `[..]` of each entry.
      noise: (key, shape, dtype) -> draws for location 0 and scale 1.
    """
    return Likelihood(
        link=lambda raw: onto_support(spec, raw),
        log_prob=lambda loc, x: log_prob(loc, spec.scale, x).sum(own_axes(spec)),
        mean=lambda loc: loc,
        sample=lambda key, loc: loc + spec.scale * noise(key, loc.shape, loc.dtype),
    )
