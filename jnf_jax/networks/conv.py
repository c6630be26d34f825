"""Strided convolutions for images: each layer halves the image, the decoder doubles it back.

Any height and width serve (28, 32, 64 among them): sizes are rounded up on the way in and cropped on the way out.
"""

import dataclasses
import math

import flax.linen as nn

from jnf_jax import configs, types
from jnf_jax import specs as specs_lib
from jnf_jax.networks import activations, base, convolution


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(configs.Component):
    """A convolutional encoder and decoder.

    Attributes:
      channels: channels after each halving, encoder order; the decoder's are reversed.
      hidden: width of the dense layer between the images and the latent space.
      activation: relu, silu, gelu or tanh.
    """

    channels: tuple[int, ...] = (32, 64, 128)
    hidden: int = 256
    activation: str = "relu"


def build(config: Config, spec: specs_lib.ModalitySpec) -> base.Networks:
    """Returns the networks of one image modality.

    Raises:
      ValueError: if the modality is no image, or too small for so many halvings.
    """
    convolution.check_image(spec.parameter_shape, len(config.channels))
    return base.Networks(
        encoder=Encoder(channels=config.channels, hidden=config.hidden, activation=config.activation),
        decoder=Decoder(
            channels=config.channels[::-1], hidden=config.hidden, shape=spec.parameter_shape, activation=config.activation
        ),
    )


class Encoder(nn.Module):
    """`[B, H, W, C]` to `[B, hidden]`."""

    channels: tuple[int, ...]
    hidden: int
    activation: str = "relu"

    @nn.compact
    def __call__(self, x: types.Array) -> types.Array:
        act = activations.activation(self.activation)
        for features in self.channels:
            x = act(convolution.Halve(features)(x))
        return act(nn.Dense(self.hidden)(x.reshape(x.shape[0], -1)))


class Decoder(nn.Module):
    """`[B, D]` to `[B, *shape]`."""

    channels: tuple[int, ...]
    hidden: int
    shape: tuple[int, ...]
    activation: str = "relu"

    @nn.compact
    def __call__(self, z: types.Array) -> types.Array:
        act = activations.activation(self.activation)
        heights, widths = (convolution.halvings(n, len(self.channels))[::-1] for n in self.shape[:2])
        smallest = (heights[0], widths[0], self.channels[0])
        x = act(nn.Dense(self.hidden)(z))
        x = act(nn.Dense(math.prod(smallest))(x)).reshape(-1, *smallest)
        for features, height, width in zip((*self.channels[1:], self.shape[-1]), heights[1:], widths[1:], strict=True):
            last = height == self.shape[0]
            x = convolution.Double(features)(x)[:, :height, :width]
            x = x if last else act(x)
        return x
