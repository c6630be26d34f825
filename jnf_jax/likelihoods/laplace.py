"""Laplace likelihood of real values, of the spec's scale b: p(x) = exp(-|x - parameters| / b) / 2b."""

import dataclasses
import functools

import jax
from jax.scipy.stats import laplace

from jnf_jax import specs as specs_lib
from jnf_jax.likelihoods import base


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(base.Config):
    """Independent Laplace variables; there is nothing to set."""


def build(config: Config, spec: specs_lib.ModalitySpec) -> base.Likelihood:
    """Returns the likelihood. Draws are not cut off at the ends of a support."""
    del config
    return base.Likelihood(
        link=functools.partial(base.onto_support, spec),
        log_prob=lambda loc, x: laplace.logpdf(x, loc, spec.scale).sum(base.own_axes(spec)),
        mean=lambda loc: loc,
        sample=lambda key, loc: loc + spec.scale * jax.random.laplace(key, loc.shape, loc.dtype),
    )
