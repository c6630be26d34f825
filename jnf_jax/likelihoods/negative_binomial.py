"""Negative binomial likelihood of counts, that of scVI (Lopez et al., 2018),

    x_g ~ NB(mean l p_g, variance l p_g + (l p_g)^2 / theta_g),     p = softmax(decoder's first output), theta = exp(its second).

The library l is the total count. In `log_prob` it is the observed example's own, so that log p(x | z, l) says how the counts are shared out and
not how many there are. In `mean` and `sample` no example has been observed, and l is the spec's `library`.
"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from jnf_jax import specs as specs_lib
from jnf_jax import types
from jnf_jax.likelihoods import base

_LOG_DISPERSION_BOUND = 10.0  # beyond e^10 counts are Poisson's, below e^-10 they are not counts of anything


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(base.Config):
    """Independent counts, given their total; there is nothing to set."""

    values: ClassVar[specs_lib.Values] = "counts"
    given_total: ClassVar[bool] = True

    def parameter_shape(self, spec: specs_lib.ModalitySpec) -> tuple[int, ...]:
        """Returns the shape of a log proportion and a log dispersion for each count."""
        return (*spec.shape, 2)


def build(config: Config, spec: specs_lib.ModalitySpec) -> base.Likelihood:
    """Returns the likelihood; its mean and its draws are those of an example whose total is near the spec's library."""
    del config
    return base.Likelihood(
        link=lambda raw: link(spec, raw),
        log_prob=lambda parameters, x: log_prob(parameters, own_library(spec, parameters, x), x).sum(base.own_axes(spec)),
        mean=lambda parameters: mean(spec, parameters),
        sample=lambda key, parameters: sample(spec, key, parameters),
    )


def link(spec: specs_lib.ModalitySpec, raw: types.Array) -> types.Array:
    """Returns log proportions, of which the sum over an example is 1, and log dispersions `[.., *shape, 2]`, given any numbers."""
    log_proportion = jax.nn.log_softmax(raw[..., 0], axis=base.own_axes(spec))
    log_dispersion = _LOG_DISPERSION_BOUND * jnp.tanh(raw[..., 1] / _LOG_DISPERSION_BOUND)
    return jnp.stack([log_proportion, log_dispersion], axis=-1)


def own_library(spec: specs_lib.ModalitySpec, parameters: types.Array, x: types.Array) -> types.Array:
    """Returns the total count of each example `[.., 1 each]`, at least 1."""
    return jnp.maximum(x.astype(parameters.dtype).sum(base.own_axes(spec), keepdims=True), 1)


def log_prob(parameters: types.Array, library: types.Array, x: types.Array) -> types.Array:
    """Returns the log density `[.., *shape]` of independent counts x, given parameters `[.., *shape, 2]` and a library `[.., 1 each]`.

    TFP's stays exact for large dispersions, where differences of log gamma functions lose all digits.
    """
    from tensorflow_probability.substrates import jax as tfp

    log_proportion, log_dispersion = parameters[..., 0], parameters[..., 1]
    logits = jnp.log(library) + log_proportion - log_dispersion
    counts = tfp.distributions.NegativeBinomial(jnp.exp(log_dispersion), logits=logits, require_integer_total_count=False)
    return counts.log_prob(x.astype(parameters.dtype))


def mean(spec: specs_lib.ModalitySpec, parameters: types.Array) -> types.Array:
    """Returns the mean counts `[.., *shape]` of an example of the spec's library."""
    return spec.library * jnp.exp(parameters[..., 0])


def sample(spec: specs_lib.ModalitySpec, key: types.Array, parameters: types.Array) -> types.Array:
    """Returns counts `[.., *shape]` of an example of the spec's library."""
    rates, counts = jax.random.split(key)
    dispersion = jnp.exp(parameters[..., 1])
    rate = mean(spec, parameters) * jax.random.gamma(rates, dispersion) / dispersion
    return jax.random.poisson(counts, rate).astype(parameters.dtype)
