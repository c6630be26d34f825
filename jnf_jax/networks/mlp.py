"""Multilayer perceptrons for modalities of any shape."""

import dataclasses
import math

import flax.linen as nn

from jnf_jax import configs, types
from jnf_jax import specs as specs_lib
from jnf_jax.networks import activations, base


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(configs.Component):
    """An MLP encoder and decoder.

    Attributes:
      hidden: widths of the hidden layers, encoder order; the decoder's are reversed. Empty: a linear map.
      activation: relu, silu, gelu or tanh.
    """

    hidden: tuple[int, ...] = (400,)
    activation: str = "relu"


def build(config: Config, spec: specs_lib.ModalitySpec) -> base.Networks:
    """Returns the networks of one modality."""
    return base.Networks(
        encoder=MLP(hidden=config.hidden, activation=config.activation),
        decoder=Decoder(hidden=config.hidden[::-1], activation=config.activation, shape=spec.parameter_shape),
    )


class MLP(nn.Module):
    """`[B, ...]` to `[B, hidden[-1]]`, flattened first; the identity where there is no hidden layer."""

    hidden: tuple[int, ...]
    activation: str = "relu"

    @nn.compact
    def __call__(self, x: types.Array) -> types.Array:
        x = x.reshape(x.shape[0], -1)
        for width in self.hidden:
            x = activations.activation(self.activation)(nn.Dense(width)(x))
        return x


class Decoder(nn.Module):
    """`[B, D]` to `[B, *shape]`."""

    hidden: tuple[int, ...]
    shape: tuple[int, ...]
    activation: str = "relu"

    @nn.compact
    def __call__(self, z: types.Array) -> types.Array:
        h = MLP(hidden=self.hidden, activation=self.activation)(z)
        return nn.Dense(math.prod(self.shape))(h).reshape(-1, *self.shape)
