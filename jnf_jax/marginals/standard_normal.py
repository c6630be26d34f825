"""The prior itself, N(0, I), as in the paper: nothing is fitted."""

import dataclasses

import jax

from jnf_jax import configs, distributions
from jnf_jax.marginals import base


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(configs.Component):
    """The standard normal."""


def build(config: Config, dim: int) -> base.Marginal:
    """Returns N(0, I) on R^dim."""
    del config
    return base.Marginal(
        init=lambda key: {},
        log_density=lambda params, z: distributions.standard_normal_log_prob(z),
        sample=lambda params, key, *, num_samples: jax.random.normal(key, (num_samples, dim)),
    )
