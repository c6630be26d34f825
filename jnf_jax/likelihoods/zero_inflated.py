"""Negative binomial likelihood of counts that are 0 more often than that, as in scVI (Lopez et al., 2018): a count is lost with probability pi,

    p(x_g) = pi_g [x_g = 0] + (1 - pi_g) NB(x_g),     pi = sigmoid(decoder's third output),

and NB as in `negative_binomial`, whose library it takes.
"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from jnf_jax import specs as specs_lib
from jnf_jax import types
from jnf_jax.likelihoods import base, negative_binomial


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(base.Config):
    """Independent counts, given their total; there is nothing to set, and the spec needs a `library`."""

    values: ClassVar[specs_lib.Values] = "counts"

    def parameter_shape(self, spec: specs_lib.ModalitySpec) -> tuple[int, ...]:
        """Returns the shape of a log proportion, a log dispersion and a logit for each count."""
        return (*spec.shape, 3)


def build(config: Config, spec: specs_lib.ModalitySpec) -> base.Likelihood:
    """Returns the likelihood.

    Raises:
      ValueError: if the spec has no library.
    """
    del config
    if spec.library is None:
        raise ValueError("Expected a library for a zero-inflated modality, got None.")
    lost = lambda parameters: parameters[..., 2]

    def link(raw):
        return jnp.concatenate([negative_binomial.link(spec, raw), raw[..., 2:]], axis=-1)

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
