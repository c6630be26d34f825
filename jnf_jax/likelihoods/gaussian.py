"""Gaussian likelihood of real values, of the spec's scale: x ~ N(parameters, scale^2)."""

import dataclasses

import jax
import jax.numpy as jnp
from jax.scipy.stats import norm

from jnf_jax import specs as specs_lib
from jnf_jax import types
from jnf_jax.likelihoods import base


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(base.Config):
    """Independent Gaussians; there is nothing to set."""


def build(config: Config, spec: specs_lib.ModalitySpec) -> base.Likelihood:
    """Returns the likelihood."""
    del config
    return base.around_locations(spec, log_prob, jax.random.normal)


def log_prob(loc: types.Array, scale: types.Array | float, x: types.Array) -> types.Array:
    """Returns the log density `[..]` of each entry of x `[..]`, given locations and scales of a shape that broadcasts."""
    # JAX's own with a scale squares it, which in float32 leaves 0 of one below 1e-23
    return norm.logpdf((x - loc) / scale) - jnp.log(scale)
