"""Squares and circles, full or empty: the paper's toy set (figure 2).

Two binary images of 32x32. Both are full, or both are empty (a ring 0.25 thick): that is all they share. Their sizes, half the side of the
square and the radius of the circle, are drawn apart from each other, uniform in (0.3, 0.9) where the image spans (-1, 1).
"""

import dataclasses

import numpy as np

from jnf_jax import configs, specs
from jnf_jax.data import source

MODALITIES = ("square", "circle")
_SIZE = 32
_SMALLEST, _LARGEST = 0.3, 0.9
_THICKNESS = 0.25


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(configs.Component):
    """Squares and circles.

    Attributes:
      seed: of classes and sizes.
      num_train: training pairs.
      num_validation: validation pairs.
      num_test: test pairs.
      scale: standard deviation of the Gaussian likelihood of a pixel, whose value is 0 or 1.
    """

    seed: int = 0
    num_train: int = 14_000
    num_validation: int = 3_000
    num_test: int = 3_000
    scale: float = 1.0


def build(config: Config, split: source.Split) -> source.Source:
    """Returns one split; the label is 1 where the shapes are full.

    Raises:
      ValueError: if the split is unknown or its number of pairs is not positive.
    """
    num = source.num_examples(config, split)
    rng = np.random.default_rng([config.seed, source.SPLITS.index(split)])
    labels = rng.permutation(np.arange(num) % 2).astype(np.int32)
    sizes = rng.uniform(_SMALLEST, _LARGEST, (num, len(MODALITIES)))
    arrays = {name: draw(name, sizes[:, j], labels) for j, name in enumerate(MODALITIES)}
    spec = specs.ModalitySpec(shape=(_SIZE, _SIZE, 1), likelihood="gaussian", scale=config.scale, support=(0.0, 1.0))
    return source.Source(specs=dict.fromkeys(MODALITIES, spec), arrays=arrays, labels=labels)


def draw(name: str, sizes: np.ndarray, full: np.ndarray) -> np.ndarray:
    """Returns images `[N, 32, 32, 1]` uint8, 0 or 255, of shapes of the given sizes `[N]`, full or empty `[N]`."""
    centres = (np.arange(_SIZE) + 0.5) * (2 / _SIZE) - 1
    across, down = np.meshgrid(centres, centres, indexing="ij")
    distance = np.maximum(abs(across), abs(down)) if name == "square" else np.hypot(across, down)
    sizes = np.asarray(sizes)[:, None, None]
    inside = (distance < sizes) & (np.asarray(full, bool)[:, None, None] | (distance > sizes - _THICKNESS))
    return (255 * inside[..., None]).astype(np.uint8)


def classify(images: np.ndarray) -> np.ndarray:
    """Returns 1 for full and 0 for empty shapes `[N]`, by the four pixels in the middle: every empty shape has a hole there.

    Args:
      images: `[N, 32, 32, 1]` in [0, 1].
    """
    middle = slice(_SIZE // 2 - 1, _SIZE // 2 + 1)
    return (np.asarray(images)[:, middle, middle, 0].mean((1, 2)) > 0.5).astype(np.int32)
