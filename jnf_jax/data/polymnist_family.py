"""What the data sets of MNIST's digits over pictures share: five views, one picture each."""

import dataclasses
from collections.abc import Mapping
from typing import Literal

import numpy as np

from jnf_jax import configs, specs
from jnf_jax.data import files, mnist, overlay, pairing, prepared, source

_HINT = "They are the background pictures of PolyMNIST and of its extension (github.com/rooshenasgroup/sbmae), under their own names."


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(configs.Component):
    """What the data sets of this family are made with.

    Attributes:
      seed: of the held out examples, and, where a set is made here, of the pairing, the crops and the shifts.
      validation_fraction: share of the training part kept for validation.
      likelihood: of the images. A Laplace likelihood asks for medians, and as long as a code tells little of the digit the median of a
        pixel is its background: digits are learnt late. A Gaussian one asks for means, and they are learnt within minutes.
      scale: b of the Laplace likelihood, standard deviation of the Gaussian one, in units of an intensity in [0, 1].
    """

    seed: int = 0
    validation_fraction: float = 0.1
    likelihood: Literal["laplace", "gaussian"] = "laplace"
    scale: float = 0.75


def load(
    config: Config,
    split: source.Split,
    *,
    pictures: Mapping[str, str],
    translated: bool,
    folder: str = "polymnist_backgrounds",
) -> source.Source:
    """Returns one split.

    Args:
      config: of the data set.
      split: which.
      pictures: modality -> name of its picture.
      translated: whether digits are shrunk and shifted.
      folder: of the pictures, in `$JNF_DATA_DIR`.
    """
    paths = {name: files.folder(folder, file, _HINT)[0] for name, file in pictures.items()}

    def make(split):
        images, labels = digits(config.seed, config.validation_fraction, split)
        pixels = {name: overlay.picture(path) for name, path in paths.items()}
        classes, views = overlay.views(images, labels, pixels, seed=config.seed, split=split, translated=translated)
        return prepared.Examples(classes, views)

    return prepared.load(
        config,
        split,
        specs=dict.fromkeys(pictures, image_spec(config)),
        dtypes=dict.fromkeys(pictures, np.uint8),
        raw=mnist.identity() | files.sha256(paths.values()),
        make=make,
    )


def digits(seed: int, validation_fraction: float, split: source.Split) -> tuple[np.ndarray, np.ndarray]:
    """Returns MNIST's digits `[N, 28, 28]` uint8 of a split and their classes; a digit is in one split alone."""
    images, labels = mnist.read(split)
    if split != "test":
        rows = pairing.holdout(seed, labels, validation_fraction)[split]
        images, labels = images[rows], labels[rows]
    return images, labels


def image_spec(config: Config, shape: tuple[int, ...] = (overlay.SIZE, overlay.SIZE, 3)) -> specs.ModalitySpec:
    """Returns the spec of an image, of 28x28 in colour where no other shape is asked for."""
    return specs.ModalitySpec(shape=shape, likelihood=config.likelihood, scale=config.scale, support=(0.0, 1.0))
