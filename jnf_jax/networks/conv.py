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
      kernel: width of the kernels, 3 or 4.
      hidden: width of the dense layer behind the encoder's images; None for none.
      decoder_hidden: width of the dense layer before the decoder's images; None for none.
      activation: relu, silu, gelu or tanh.
    """

    channels: tuple[int, ...] = (32, 64, 128)
    kernel: int = 4
    hidden: int | None = 256
    decoder_hidden: int | None = 256
    activation: str = "relu"


def build(config: Config, spec: specs_lib.ModalitySpec) -> base.Networks:
    """Returns the networks of one image modality.

    Raises:
      ValueError: if the modality is no image, or too small for so many halvings, or there are no such kernels.
    """
    convolution.check_image(spec.shape if len(spec.shape) == 3 else spec.input_shape, len(config.channels))
    if config.kernel not in (3, 4):
        raise ValueError(f"Expected a kernel of 3 or 4 pixels, got {config.kernel}.")
    common = {"kernel": config.kernel, "activation": config.activation}
    channels = config.channels[::-1]
    return base.Networks(
        encoder=Encoder(channels=config.channels, hidden=config.hidden, **common),
        decoder=Decoder(
            channels=channels, hidden=config.decoder_hidden, shape=convolution.as_image(spec.parameter_shape), **common
        ),
    )


class Encoder(nn.Module):
    """`[B, H, W, ..]` to `[B, hidden]`, or the last image's values where `hidden` is None; all axes behind the width are channels."""

    channels: tuple[int, ...]
    hidden: int | None
    kernel: int = 4
    activation: str = "relu"

    @nn.compact
    def __call__(self, x: types.Array) -> types.Array:
        act = activations.activation(self.activation)
        x = x.reshape(x.shape[0], *convolution.as_image(x.shape[1:]))
        for features in self.channels:
            x = act(convolution.Halve(features, self.kernel)(x))
        x = x.reshape(x.shape[0], -1)
        return x if self.hidden is None else act(nn.Dense(self.hidden)(x))


class Decoder(nn.Module):
    """`[B, D]` to `[B, *shape]`."""

    channels: tuple[int, ...]
    hidden: int | None
    shape: tuple[int, ...]
    kernel: int = 4
    activation: str = "relu"

    @nn.compact
    def __call__(self, z: types.Array) -> types.Array:
        act = activations.activation(self.activation)
        heights, widths = (convolution.halvings(n, len(self.channels))[::-1] for n in self.shape[:2])
        smallest = (heights[0], widths[0], self.channels[0])
        x = z if self.hidden is None else act(nn.Dense(self.hidden)(z))
        x = act(nn.Dense(math.prod(smallest))(x)).reshape(-1, *smallest)
        for features, height, width in zip((*self.channels[1:], self.shape[-1]), heights[1:], widths[1:], strict=True):
            last = height == self.shape[0]
            x = convolution.Double(features, self.kernel)(x)[:, :height, :width]
            x = x if last else act(x)
        return x
