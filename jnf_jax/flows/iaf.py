"""Inverse autoregressive flow (Kingma et al., 2016): the masked autoregressive flow run the other way.

Draws cost one pass a block; the density of a given point, which training and every leapfrog step need, costs the triangular solve
(`autoregressive.solve`: at most D passes a block) and its gradient a Jacobian of the conditioner. Choose it where draws from one
modality are all that is asked for.
"""

import dataclasses

from jnf_jax import configs
from jnf_jax.flows import base, maf


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(configs.Component):
    """An inverse autoregressive flow.

    Attributes:
      num_blocks: number of MADE blocks.
      hidden: widths of each block's hidden layers.
      activation: relu, silu, gelu or tanh.
      log_scale_bound: bound of the log scale in one block.
      widening: whether a block may shrink distances on the way to the base, and so an expert be wider than its base Gaussian.
      input_bound: conditioners see b tanh(u / b): far out a block becomes affine.
    """

    num_blocks: int = 2
    hidden: tuple[int, ...] = (128, 128, 128)
    activation: str = "silu"
    log_scale_bound: float = 4.0
    widening: bool = False
    input_bound: float = 2.5


def build(config: Config, dim: int) -> base.Flow:
    """Returns the flow on R^dim."""
    fields = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    masked = maf.build(maf.Config(**fields), dim, reverse=True)
    return base.Flow(init=masked.init, forward=masked.inverse, inverse=masked.forward)
