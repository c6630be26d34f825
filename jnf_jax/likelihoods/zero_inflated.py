"""Negative binomial likelihood of counts that are 0 more often than that, as in scVI (Lopez et al., 2018): a count is lost with probability pi,

    p(x_g) = pi_g [x_g = 0] + (1 - pi_g) NB(x_g; mean l r_g, variance l r_g + (l r_g)^2 / theta_g),     r_g = p_g / sum_h p_h (1 - pi_h),

with p and theta as in `negative_binomial`, and pi from the decoder's third output. scVI has r = p. Here l, which is the total after losses where an
example is observed, is also the mean total of what is generated.
"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from jnf_jax import specs as specs_lib
from jnf_jax import types
from jnf_jax.likelihoods import base, negative_binomial

_LOGIT_BOUND = 10.0  # of what is lost, at most 1 - 5e-5, for something must be left


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(base.Config):
    """Independent counts, given their total; there is nothing to set."""

    values: ClassVar[specs_lib.Values] = "counts"
    given_total: ClassVar[bool] = True

    def parameter_shape(self, spec: specs_lib.ModalitySpec) -> tuple[int, ...]:
        """Returns the shape of a log proportion, a log dispersion and a logit for each count."""
        return (*spec.shape, 3)


def build(config: Config, spec: specs_lib.ModalitySpec) -> base.Likelihood:
    """Returns the likelihood; its mean and its draws are those of an example whose total is near the spec's library."""
    del config
    lost = lambda parameters: parameters[..., 2]

    def link(raw):
        logit = _LOGIT_BOUND * jnp.tanh(raw[..., 2] / _LOGIT_BOUND)
        shared = negative_binomial.link(spec, raw)
        left = jax.nn.logsumexp(shared[..., 0] + jax.nn.log_sigmoid(-logit), axis=base.own_axes(spec), keepdims=True)
        return jnp.stack([shared[..., 0] - left, shared[..., 1], logit], axis=-1)

    def sample(key, parameters):
        losses, counts = jax.random.split(key)
        kept = jax.random.bernoulli(losses, jax.nn.sigmoid(-lost(parameters)))
        return kept * negative_binomial.sample(spec, counts, parameters)

    return base.Likelihood(
        link=link,
        log_prob=lambda parameters, x: log_prob(parameters, negative_binomial.own_library(spec, parameters, x), x).sum(
            base.own_axes(spec)
        ),
        mean=lambda parameters: negative_binomial.mean(spec, parameters) * jax.nn.sigmoid(-lost(parameters)),
        sample=sample,
    )


def log_prob(parameters: types.Array, library: types.Array, x: types.Array) -> types.Array:
    """Returns the log density `[.., *shape]` of independent counts x, given parameters `[.., *shape, 3]` and a library `[.., 1 each]`."""
    counted = jax.nn.log_sigmoid(-parameters[..., 2]) + negative_binomial.log_prob(parameters, library, x)
    return jnp.where(x == 0, jnp.logaddexp(jax.nn.log_sigmoid(parameters[..., 2]), counted), counted)
