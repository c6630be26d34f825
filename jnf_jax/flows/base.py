"""The contract of a flow: a bijection f of one point z in R^D.

A flow file exports `Config` and `build(config, dim) -> Flow`. `forward` runs from the latent space to the base (the direction in which
a density is evaluated), `inverse` back (the direction in which one samples). Both take one point; `vmap` is the caller's.
"""

import dataclasses
from typing import Protocol

from jnf_jax import types


class Init(Protocol):
    """Draws parameters."""

    def __call__(self, key: types.Array) -> types.Params:
        """Maps a key to the parameters of one flow."""


class Transform(Protocol):
    """One direction of the bijection."""

    def __call__(self, params: types.Params, point: types.Array) -> tuple[types.Array, types.Array]:
        """Maps a point [D] to (its image [D], log |det of the Jacobian of this direction| [])."""


@dataclasses.dataclass(frozen=True)
class Flow:
    """Pure functions of one flow."""

    init: Init
    forward: Transform  # z -> u
    inverse: Transform  # u -> z
