"""Halving and doubling convolutions: `lax.conv` where it is fast, matrix products on CPUs.

`halve` is the stride-2 convolution whose windows begin one pixel before each pair of pixels, `double` its transpose, for 3x3 and 4x4
kernels. On a CPU XLA's gradient of a strided convolution inside a scan takes hundreds of times as long as its forward pass, so there both
are written out: patches times a matrix on the way down, a matrix and a sum of overlapping patches on the way up, each the other's
gradient (2 cores, batch 128, 14x14x32 to 7x7x64, forward and backward: 337 ms by `lax.conv`, 5 ms by these).
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from jnf_jax import types

_PIECE = 2**20  # values: a piece of a batch has about so many in its patches, so that they stay in a core's cache
_MOST_PIECES = 4
_DIMENSIONS = ("NHWC", "HWIO", "NHWC")


@jax.custom_vjp
def halve(x: types.Array, kernel: types.Array) -> types.Array:
    """Returns the stride-2 convolution; with a 4x4 kernel that of SAME padding, with a 3x3 kernel that of one pixel all around.

    Args:
      x: `[B, H, W, C]`.
      kernel: `[k, k, C, F]`, k 3 or 4.

    Returns:
      `[B, ceil(H / 2), ceil(W / 2), F]`.
    """
    return jax.lax.platform_dependent(x, kernel, cpu=halve_by_patches, default=halve_by_lax)


@jax.custom_vjp
def double(x: types.Array, kernel: types.Array) -> types.Array:
    """Returns the transposed stride-2 convolution: `halve`'s gradient with respect to an image of even size.

    Args:
      x: `[B, H, W, C]`.
      kernel: `[k, k, F, C]`, as `halve` takes it for the way from F to C channels.

    Returns:
      `[B, 2H, 2W, F]`.
    """
    return jax.lax.platform_dependent(x, kernel, cpu=double_by_patches, default=double_by_lax)


def halve_by_patches(x: types.Array, kernel: types.Array) -> types.Array:
    """`halve` as a matrix product for each piece of the batch."""
    size = kernel.shape[0]
    matrix = kernel.reshape(-1, kernel.shape[-1])
    return _joined([_patches(piece, size) @ matrix for piece in _split(size, x)[0]])


def halve_by_lax(x: types.Array, kernel: types.Array) -> types.Array:
    """`halve` as XLA has it."""
    padding = [(1, after) for after in _padding_after(x.shape, kernel.shape[0])]
    return jax.lax.conv_general_dilated(x, kernel, (2, 2), padding, dimension_numbers=_DIMENSIONS)


def double_by_patches(x: types.Array, kernel: types.Array) -> types.Array:
    """`double` as a matrix product for each piece of the batch, whose patches are then added up where they overlap."""
    size, features = kernel.shape[0], kernel.shape[2]
    matrix = kernel.reshape(-1, kernel.shape[-1]).T

    def double_piece(x):
        batch, height, width, _ = x.shape
        taps = (x @ matrix).reshape(batch, height, width, size, size, features)

        def phase(r, s):  # the pixels (2 i + r, 2 j + s) of the image with its margin of one
            pieces = [
                jnp.pad(taps[:, :, :, p, q], ((0, 0), (p // 2, 1 - p // 2), (q // 2, 1 - q // 2), (0, 0)))
                for p in range(r, size, 2)
                for q in range(s, size, 2)
            ]
            return sum(pieces)

        rows = jnp.stack([jnp.stack([phase(r, s) for s in (0, 1)], axis=3) for r in (0, 1)], axis=2)
        return rows.reshape(batch, 2 * height + 2, 2 * width + 2, features)[:, 1:-1, 1:-1]

    num_pieces = _num_pieces(len(x), x.size // x.shape[-1] * matrix.shape[-1])
    return _joined([double_piece(piece) for piece in _pieces(x, num_pieces)])


def double_by_lax(x: types.Array, kernel: types.Array) -> types.Array:
    """`double` as XLA has it."""
    padding = [(kernel.shape[0] - 2, 2)] * 2
    return jax.lax.conv_general_dilated(
        x, kernel[::-1, ::-1].swapaxes(2, 3), (1, 1), padding, lhs_dilation=(2, 2), dimension_numbers=_DIMENSIONS
    )


def _halve_backward(saved, gradient):
    x, kernel = saved
    towards_x = double(gradient, kernel)[:, : x.shape[1], : x.shape[2]]
    return towards_x, _kernel_gradient(x, gradient, kernel.shape[0])


def _double_backward(saved, gradient):
    x, kernel = saved
    return halve(gradient, kernel), _kernel_gradient(gradient, x, kernel.shape[0])


halve.defvjp(lambda x, kernel: (halve(x, kernel), (x, kernel)), _halve_backward)
double.defvjp(lambda x, kernel: (double(x, kernel), (x, kernel)), _double_backward)


def _kernel_gradient(x: types.Array, gradient: types.Array, size: int) -> types.Array:
    """Returns the gradient `[k, k, C, F]` of `halve`'s kernel for inputs `[B, H, W, C]` and outputs' gradient `[B, .., F]`."""

    def by_patches(x, gradient):
        def of_piece(x, gradient):
            flat = gradient.reshape(-1, gradient.shape[-1])
            # the longer rows stand on the right: half the time of the transpose
            return flat.T @ _patches(x, size).reshape(len(flat), -1)

        whole = sum(of_piece(*pieces) for pieces in zip(*_split(size, x, gradient), strict=True))
        return whole.T.reshape(size, size, x.shape[-1], -1)

    def by_lax(x, gradient):
        kernel = jnp.zeros((size, size, x.shape[-1], gradient.shape[-1]), x.dtype)
        return jax.vjp(lambda kernel: halve_by_lax(x, kernel), kernel)[1](gradient)[0]

    return jax.lax.platform_dependent(x, gradient, cpu=by_patches, default=by_lax)


def _split(size: int, x: types.Array, *others: types.Array) -> list[list[types.Array]]:
    """Returns each array in pieces along the batch, as many as suit the patches of `x`."""
    num_pieces = _num_pieces(len(x), x.size * size**2 // 4)
    return [_pieces(array, num_pieces) for array in (x, *others)]


def _pieces(x: types.Array, num: int) -> list[types.Array]:
    """Returns every num-th row, from each of the first num on: of a batch that lies on several devices each has its part of every piece."""
    return [x] if num == 1 else [x.reshape(-1, num, *x.shape[1:])[:, k] for k in range(num)]


def _joined(pieces: list[types.Array]) -> types.Array:
    """Returns the rows of `_pieces` in their order."""
    return pieces[0] if len(pieces) == 1 else jnp.stack(pieces, axis=1).reshape(-1, *pieces[0].shape[1:])


def _num_pieces(batch: int, num_values: int) -> int:
    """Returns into how many equal pieces a batch is split whose patches have so many values.

    With fewer than two pieces' worth it stays whole: it runs as fast, and a step is compiled in .8 of the time.
    """
    if num_values < 2 * _PIECE:
        return 1
    return max(n for n in range(1, _MOST_PIECES + 1) if batch % n == 0 and (n == 1 or num_values > (n - 1) * _PIECE))


def _patches(x: types.Array, size: int) -> types.Array:
    """Returns the windows of `[B, H, W, C]`, `[B, ceil(H / 2), ceil(W / 2), k k C]`; neighbours in a row are copied as one."""
    batch, height, width, channels = x.shape
    x = jnp.pad(x, ((0, 0), (1, 1 + height % 2), (1, 1 + width % 2), (0, 0)))
    height, width = -(-height // 2), -(-width // 2)
    pairs = x.reshape(batch, height + 1, 2, width + 1, 2 * channels)

    def taps(p, q):  # pixels q and q + 1 of row p of every window, or q alone at its end
        return pairs[:, p // 2 : p // 2 + height, p % 2, q // 2 : q // 2 + width, : min(size - q, 2) * channels]

    return jnp.concatenate([taps(p, q) for p in range(size) for q in (0, 2)], axis=-1)


def _padding_after(shape: tuple[int, ...], size: int) -> list[int]:
    """Returns the pixels that the last windows reach beyond height and width."""
    return [2 * -(-n // 2) + size - 3 - n for n in shape[1:3]]


class Halve(nn.Module):
    """A convolution of stride 2: `[B, H, W, C]` to `[B, ceil(H/2), ceil(W/2), features]`."""

    features: int
    kernel: int = 4

    @nn.compact
    def __call__(self, x: types.Array) -> types.Array:
        shape = (self.kernel, self.kernel, x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        return halve(x, kernel.astype(x.dtype)) + bias.astype(x.dtype)


class Double(nn.Module):
    """A transposed convolution of stride 2: `[B, H, W, C]` to `[B, 2H, 2W, features]`."""

    features: int
    kernel: int = 4

    @nn.compact
    def __call__(self, x: types.Array) -> types.Array:
        # each output sums a quarter of the taps of every channel
        init = nn.initializers.variance_scaling(4.0, "fan_in", "truncated_normal", in_axis=-1, out_axis=-2)
        kernel = self.param("kernel", init, (self.kernel, self.kernel, self.features, x.shape[-1]))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        return double(x, kernel.astype(x.dtype)) + bias.astype(x.dtype)


def halvings(size: int, count: int) -> list[int]:
    """Returns `size` and the sizes after each of `count` halvings with SAME padding."""
    sizes = [size]
    for _ in range(count):
        sizes.append(-(-sizes[-1] // 2))
    return sizes


def as_image(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Returns (H, W, channels) of the shape of an image's values or parameters: one-hot categories and several parameters are channels too."""
    return (*shape[:2], math.prod(shape[2:]))


def check_image(shape: tuple[int, ...], num_halvings: int) -> None:
    """Raises a ValueError unless `shape` is (H, W, C) and H and W can be halved so often."""
    if len(shape) != 3:
        raise ValueError(f"Expected an image modality of shape (height, width, channels) for a convolution, got {shape}.")
    if min(shape[:2]) < 2**num_halvings:
        raise ValueError(
            f"Expected an image of at least {2**num_halvings} pixels a side for {num_halvings} halvings, got {shape}."
        )
