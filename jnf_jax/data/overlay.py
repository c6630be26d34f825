"""Digits over pictures: how PolyMNIST and its kin are made.

A digit lies over a random crop of its modality's own picture; where its pixels are bright the crop's colours are inverted. In the translated
variant the digit is scaled to three quarters and shifted at random, apart from the other modalities'.
"""

import pathlib
from collections.abc import Callable

import numpy as np
import PIL.Image

from jnf_jax.data import pairing, source

SIZE = 28
_BRIGHT = 128
_SMALL = 21  # three quarters of 28


def picture(path: pathlib.Path) -> np.ndarray:
    """Returns a picture `[H, W, 3]` uint8.

    Raises:
      ValueError: if it is smaller than a crop.
    """
    with PIL.Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB"))
    if min(pixels.shape[:2]) < SIZE:
        raise ValueError(f"Expected a picture of at least {SIZE}x{SIZE} pixels at {path}, got {pixels.shape[:2]}.")
    return pixels


def crops(rng: np.random.Generator, pixels: np.ndarray, num: int, size: int = SIZE) -> Callable[[slice], np.ndarray]:
    """Returns a function from rows to random crops `[.., size, size, 3]` of a picture; their places are drawn here and now."""
    top = rng.integers(pixels.shape[0] - size + 1, size=num)
    left = rng.integers(pixels.shape[1] - size + 1, size=num)
    windows = np.lib.stride_tricks.sliding_window_view(pixels, (size, size), axis=(0, 1))
    return lambda rows: windows[top[rows], left[rows]].transpose(0, 2, 3, 1)


def inverted(pixels: np.ndarray, digits: np.ndarray) -> np.ndarray:
    """Returns crops `[N, H, W, 3]` uint8 whose colours are inverted where digits `[N, H, W]` uint8 are bright."""
    return np.where((digits > _BRIGHT)[..., None], 255 - pixels, pixels)


def shrunk(digits: np.ndarray) -> np.ndarray:
    """Returns digits `[N, 28, 28]` uint8 scaled bilinearly to `[N, 21, 21]`."""
    resize = lambda digit: PIL.Image.fromarray(digit).resize((_SMALL, _SMALL), PIL.Image.Resampling.BILINEAR)
    return np.stack([np.asarray(resize(digit)) for digit in digits])


def shifted(digits: np.ndarray, top: np.ndarray, left: np.ndarray) -> np.ndarray:
    """Returns `[N, 28, 28]`: small digits `[N, h, w]` on black, their upper left corners at (top, left) `[N]`."""
    out = np.zeros((len(digits), SIZE, SIZE), digits.dtype)
    rows, columns = (np.arange(n) for n in digits.shape[1:])
    index = np.arange(len(digits))[:, None, None]
    out[index, (top[:, None] + rows)[:, :, None], (left[:, None] + columns)[:, None, :]] = digits
    return out


def views(
    digits: np.ndarray, labels: np.ndarray, pictures: dict[str, np.ndarray], *, seed: int, split: source.Split, translated: bool
) -> tuple[np.ndarray, dict[str, Callable[[slice], np.ndarray]]]:
    """Returns the classes `[N]` and, for each modality, a function from rows to images `[.., 28, 28, 3]` uint8.

    Every digit serves once in every modality, beside different digits of its class. A modality's random numbers depend on its name, not
    on the others or on the order of files.

    Args:
      digits: `[N, 28, 28]` uint8 the digits of this split.
      labels: `[N]` their classes.
      pictures: modality -> its picture.
      seed: of the pairing, the crops and the shifts.
      split: of which the digits are.
      translated: whether digits are shrunk and shifted.
    """
    classes = pairing.generator(seed, split, "classes").permutation(labels)
    if translated:
        digits = shrunk(digits)
    return classes, {
        name: _view(digits, labels, classes, pixels, pairing.generator(seed, split, name), translated)
        for name, pixels in pictures.items()
    }


def _view(digits, labels, classes, pixels, rng, translated):
    chosen = pairing.matched(rng, classes, labels)
    background = crops(rng, pixels, len(classes))
    if not translated:
        return lambda rows: inverted(background(rows), digits[chosen[rows]])
    top, left = rng.integers(SIZE - _SMALL, size=(2, len(classes)))  # offsets 0..6
    return lambda rows: inverted(background(rows), shifted(digits[chosen[rows]], top[rows], left[rows]))
