"""Laplace likelihood of real values, of the spec's scale b: p(x) = exp(-|x - parameters| / b) / 2b."""

import dataclasses

import jax
from jax.scipy.stats import laplace

from jnf_jax import specs as specs_lib
from jnf_jax.likelihoods import base


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(base.Config):
    """Independent Laplace variables; there is nothing to set."""


def build(config: Config, spec: specs_lib.ModalitySpec) -> base.Likelihood:
    """Returns the likelihood."""
    del config
    return base.around_locations(spec, lambda loc, scale, x: laplace.logpdf(x, loc, scale), jax.random.laplace)
