"""Gaussian likelihood of real values whose scale the decoder learns, entry by entry and code by code,

    x ~ N(loc, s^2),     s = scale exp(B tanh(raw / B)),     B = log(factor),

so that s lies within a factor of the spec's scale and is that scale where the decoder's second output is 0. Without a bound the likelihood of
an entry that the decoder fits exactly has no maximum (Mattei and Frellsen, 2018).
"""

import dataclasses
import math

import jax
import jax.numpy as jnp

from jnf_jax import specs as specs_lib
from jnf_jax.likelihoods import base, gaussian


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(base.Config):
    """Independent Gaussians of learnt scales.

    Attributes:
      factor: by which a learnt scale may be smaller or larger than the spec's, above 1.
    """

    factor: float = 10.0

    def __post_init__(self):
        super().__post_init__()
        if not 1 < self.factor < math.inf:
            raise ValueError(f"Expected a finite factor above 1, got {self.factor}.")

    def parameter_shape(self, spec: specs_lib.ModalitySpec) -> tuple[int, ...]:
        """Returns the shape of a location and a log scale for each value."""
        return (*spec.shape, 2)


def build(config: Config, spec: specs_lib.ModalitySpec) -> base.Likelihood:
    """Returns the likelihood, whose parameters are locations and log scales. Draws are not cut off at the ends of a support."""
    bound = math.log(config.factor)

    def link(raw):
        log_scale = math.log(spec.scale) + bound * jnp.tanh(raw[..., 1] / bound)
        return jnp.stack([base.onto_support(spec, raw[..., 0]), log_scale], axis=-1)

    def log_prob(parameters, x):
        return gaussian.log_prob(parameters[..., 0], jnp.exp(parameters[..., 1]), x).sum(base.own_axes(spec))

    def sample(key, parameters):
        noise = jax.random.normal(key, parameters.shape[:-1], parameters.dtype)
        return parameters[..., 0] + jnp.exp(parameters[..., 1]) * noise

    return base.Likelihood(link=link, log_prob=log_prob, mean=lambda parameters: parameters[..., 0], sample=sample)
