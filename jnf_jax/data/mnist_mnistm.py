"""MNIST beside MNIST-M, made here: a plain and a cluttered digit of one class. A stand-in for MNIST-SVHN.

    mnist   28x28x1    mnistm   32x32x3       uint8, Laplace(scale) or Gaussian on [0, 1]

The cluttered digit is blended over a random patch of a photograph by absolute difference, as MNIST-M does (Ganin et al., 2016), here at SVHN's
size of 32x32. Photographs (`$JNF_DATA_DIR/photos/*.jpg`) are split as the digits are: none of the test part's occurs in training.
The pairing is MNIST-SVHN's.
"""

import dataclasses
import pathlib
from collections.abc import Sequence

import numpy as np

from jnf_jax.data import digit_pairs, files, mnist, overlay, pairing, polymnist_family, source

_SIZE = 32
_SHARES = {"train": 0.8, "validation": 0.1, "test": 0.1}  # of the photographs
_HINT = "They are photographs to cut patches from; any will do, MNIST-M's are those of BSDS500."


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(digit_pairs.Config):
    """MNIST beside MNIST-M."""


def build(config: Config, split: source.Split) -> source.Source:
    """Returns one split; the same for the same config, raw files and versions of the libraries that read them.

    Raises:
      ValueError: if the split is unknown or there are fewer than ten photographs.
      FileNotFoundError: if a raw file is missing.
    """
    photographs = files.folder("photos", "*.jpg", _HINT)
    raw = mnist.identity() | files.sha256(photographs)
    return digit_pairs.load(config, split, plain="mnist", cluttered="mnistm", raw=raw, read=_read(config, photographs))


def photographs_of(photographs: Sequence[pathlib.Path], seed: int) -> dict[str, list[pathlib.Path]]:
    """Returns split -> its photographs, whatever the order in which they come.

    Raises:
      ValueError: if there are too few for three parts.
    """
    ordered = sorted(photographs, key=lambda path: path.name)
    if len(ordered) < 10:
        raise ValueError(f"Expected at least ten photographs for three parts, got {len(ordered)}.")
    order = pairing.generator(seed, "train", "photographs").permutation(len(ordered))
    ends = np.cumsum([round(share * len(ordered)) for share in _SHARES.values()])[:-1]
    return {split: [ordered[i] for i in part] for split, part in zip(_SHARES, np.split(order, ends), strict=True)}


def _read(config: Config, photographs: Sequence[pathlib.Path]):
    def read(split):
        digits, labels = polymnist_family.digits(config.seed, config.validation_fraction, split)
        rng = pairing.generator(config.seed, split, "patches")
        pixels = [overlay.picture(path) for path in photographs_of(photographs, config.seed)[split]]
        which = rng.integers(len(pixels), size=len(digits))
        corner = rng.random((2, len(digits)))

        def images(rows):
            return np.stack([blended(digits[i], pixels[which[i]], corner[:, i]) for i in rows])

        return (digits, labels), (images, labels)

    return read


def blended(digit: np.ndarray, pixels: np.ndarray, corner: np.ndarray) -> np.ndarray:
    """Returns `[32, 32, 3]` uint8: |patch - digit|, the patch's corner given as two numbers in [0, 1)."""
    top, left = (int(u * (n - _SIZE + 1)) for u, n in zip(corner, pixels.shape[:2], strict=True))
    patch = pixels[top : top + _SIZE, left : left + _SIZE].astype(np.int16)
    margin = (_SIZE - overlay.SIZE) // 2
    return np.abs(patch - np.pad(digit, margin)[..., None].astype(np.int16)).astype(np.uint8)
