"""Residual networks for images (He et al., 2016), in the manner of the published PolyMNIST runs.

Each level keeps or changes the number of channels in residual blocks of 3x3 convolutions, then halves the image by average pooling; the
decoder runs the levels backwards and doubles it by repetition.
"""

import dataclasses
import math

import flax.linen as nn
import jax.numpy as jnp

from jnf_jax import configs, types
from jnf_jax import specs as specs_lib
from jnf_jax.networks import activations, base, convolution


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(configs.Component):
    """A residual encoder and decoder.

    Attributes:
      channels: of the first level; each further level has twice as many.
      max_channels: no level has more.
      num_levels: levels, and so halvings; 3 take 28 pixels to 4, and 64 channels to 512.
      blocks_per_level: residual blocks in a level.
      activation: relu, silu, gelu or tanh.
    """

    channels: int = 64
    max_channels: int = 1024
    num_levels: int = 3
    blocks_per_level: int = 1
    activation: str = "silu"

    @property
    def level_channels(self) -> tuple[int, ...]:
        """Channels of each level, and of what follows the last halving."""
        return tuple(min(self.channels * 2**i, self.max_channels) for i in range(self.num_levels + 1))


def build(config: Config, spec: specs_lib.ModalitySpec) -> base.Networks:
    """Returns the networks of one image modality.

    Raises:
      ValueError: if the modality is no image, or too small for so many halvings.
    """
    convolution.check_image(spec.shape if len(spec.shape) == 3 else spec.input_shape, config.num_levels)
    return base.Networks(
        encoder=Encoder(config=config), decoder=Decoder(config=config, shape=convolution.as_image(spec.parameter_shape))
    )


class Block(nn.Module):
    """x + 0.1 * conv(act(conv(act(x)))), with a 1x1 convolution on the short cut where the channels change."""

    features: int
    activation: str

    @nn.compact
    def __call__(self, x: types.Array) -> types.Array:
        act = activations.activation(self.activation)
        h = nn.Conv(self.features, (3, 3))(act(x))
        h = nn.Conv(self.features, (3, 3))(act(h))
        if x.shape[-1] != self.features:
            x = nn.Conv(self.features, (1, 1), use_bias=False)(x)
        return x + 0.1 * h


class Encoder(nn.Module):
    """`[B, H, W, ..]` to `[B, F]`; all axes behind the width are channels."""

    config: Config

    @nn.compact
    def __call__(self, x: types.Array) -> types.Array:
        channels = self.config.level_channels
        x = nn.Conv(channels[0], (3, 3))(x.reshape(x.shape[0], *convolution.as_image(x.shape[1:])))
        for features in channels[1:]:
            for _ in range(self.config.blocks_per_level):
                x = Block(features, self.config.activation)(x)
            x = nn.avg_pool(x, (2, 2), strides=(2, 2), padding="SAME", count_include_pad=False)
        return activations.activation(self.config.activation)(x).reshape(x.shape[0], -1)


class Decoder(nn.Module):
    """`[B, D]` to `[B, *shape]`."""

    config: Config
    shape: tuple[int, ...]

    @nn.compact
    def __call__(self, z: types.Array) -> types.Array:
        channels = self.config.level_channels[::-1]
        heights, widths = (convolution.halvings(n, self.config.num_levels)[::-1] for n in self.shape[:2])
        smallest = (heights[0], widths[0], channels[0])
        x = nn.Dense(math.prod(smallest))(z).reshape(-1, *smallest)
        for features, height, width in zip(channels[1:], heights[1:], widths[1:], strict=True):
            for _ in range(self.config.blocks_per_level):
                x = Block(features, self.config.activation)(x)
            x = jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)[:, :height, :width]
        return nn.Conv(self.shape[-1], (3, 3))(activations.activation(self.config.activation)(x))
