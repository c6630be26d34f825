"""A flow over a mixture of Gaussians.

    log m(z) = log mixture(f(z)) + log |det df/dz|

The mixture starts where expectation maximisation leaves it, the flow near the identity; both are then trained by gradients. A flow over a single
Gaussian cannot tear its mass into clusters; the mixture does that part.
"""

import dataclasses

import jax

from jnf_jax import configs
from jnf_jax.flows import maf
from jnf_jax.marginals import base, mixture


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(configs.Component):
    """A flow over a mixture.

    Attributes:
      base: the mixture.
      flow: the bijection from codes to the base.
    """

    base: mixture.Config = mixture.Config(num_components=(20,))
    flow: configs.Component = maf.Config(num_blocks=2, hidden=(64, 64), widening=True)


def build(config: Config, dim: int) -> base.Marginal:
    """Returns the density on R^dim."""
    bottom = mixture.build(config.base, dim)
    bijection = configs.build(config.flow, dim)

    def init(key):
        keys = jax.random.split(key)
        start = bottom.init(keys[0])
        apart = jax.random.normal(keys[0], start["loc"].shape)  # equal components would have equal gradients
        return {"mixture": start | {"loc": apart}, "flow": bijection.init(keys[1])}

    def log_density(params, z):
        u, log_det = bijection.forward(params["flow"], z)
        return bottom.log_density(params["mixture"], u) + log_det

    def sample(params, key, *, num_samples):
        u = bottom.sample(params["mixture"], key, num_samples=num_samples)
        return jax.vmap(lambda u: bijection.inverse(params["flow"], u)[0])(u)

    def fit(seed, codes, held_out):
        return {"mixture": bottom.fit(seed, codes, held_out), "flow": bijection.init(jax.random.key(seed))}

    def trim(params):
        return {**params, "mixture": bottom.trim(params["mixture"])}

    return base.Marginal(
        init=init, log_density=log_density, sample=sample, fit=fit, trim=trim, least_codes=bottom.least_codes, by_gradient=True
    )
