"""Masked autoregressive flow (Papamakarios et al., 2017), the default.

    u_i = (z_i - m_i(z_<i)) exp(-s_i(z_<i)),   log |det du/dz| = -sum_i s_i

in each block, the order of the coordinates reversed between blocks. Densities of given points, which training and HMC need, cost one pass;
the inverse is a triangular solve (`autoregressive.solve`): at most D passes a block, usually far fewer.
"""

import dataclasses

import jax
import jax.numpy as jnp

from jnf_jax import configs
from jnf_jax.flows import autoregressive, base, made


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(configs.Component):
    """A masked autoregressive flow.

    Attributes:
      num_blocks: number of MADE blocks.
      hidden: widths of each block's hidden layers.
      activation: relu, silu, gelu or tanh; smooth ones make smooth densities, which HMC likes.
      log_scale_bound: bound of |s_i| in one block.
      widening: whether s_i may be positive. Where it may not, no conditional of an expert is wider than its base Gaussian.
      input_bound: conditioners see b tanh(z / b): far outside the data a block becomes affine, so that an expert's tails are
        Gaussian and no product of experts finds mass where nothing was ever learnt.
    """

    num_blocks: int = 2
    hidden: tuple[int, ...] = (128, 128, 128)
    activation: str = "silu"
    log_scale_bound: float = 4.0
    widening: bool = False
    input_bound: float = 2.5


def build(config: Config, dim: int, *, reverse: bool = False) -> base.Flow:
    """Returns the flow on R^dim; `reverse` says that its inverse is the one that must not widen (for `iaf`)."""
    sign = -1.0 if reverse else 1.0

    def conditioner(block, z, *, backwards=False):
        inputs = made.bounded(z, config.input_bound)
        shift, raw = made.apply(block, inputs, hidden=config.hidden, activation=config.activation, backwards=backwards)
        return shift, sign * made.log_scale(raw, config.log_scale_bound, widening=config.widening)

    def init(key):
        return [made.init(jax.random.fold_in(key, i), dim, config.hidden) for i in range(config.num_blocks)]

    def forward(params, z):
        log_det = jnp.zeros((), z.dtype)
        for i, block in enumerate(params):  # every other one takes its point from the last coordinate to the first
            shift, log_scale = conditioner(block, z, backwards=i % 2 == 1)
            z = (z - shift) * jnp.exp(-log_scale)
            log_det = log_det - log_scale.sum()
        return z if len(params) % 2 == 0 else z[::-1], log_det

    def inverse(params, u):
        log_det = jnp.zeros((), u.dtype)
        for block in reversed(params):
            u = autoregressive.solve(conditioner, block, u[::-1])
            log_det = log_det + conditioner(block, u)[1].sum()
        return u, log_det

    return base.Flow(init=init, forward=forward, inverse=inverse)
