"""MNIST-SVHN: a plain and a cluttered digit of one class, paired at random (Shi et al., 2019).

    mnist   28x28x1    svhn   32x32x3       uint8, Laplace(scale) or Gaussian on [0, 1]

Of each class at most 10,000 digits of either set are used, as many of both; each of them is paired five times, with partners drawn without
repetition in each round. A tenth of the training digits of either set is kept for validation before pairing, so that no digit is on both sides.
"""

import dataclasses

import numpy as np

from jnf_jax.data import digit_pairs, mnist, pairing, polymnist_family, source, svhn


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(digit_pairs.Config):
    """MNIST-SVHN."""


def build(config: Config, split: source.Split) -> source.Source:
    """Returns one split.

    Raises:
      ValueError: if the split is unknown.
      FileNotFoundError: if a raw file is missing.
    """
    return digit_pairs.load(
        config, split, plain="mnist", cluttered="svhn", raw=mnist.identity() | svhn.identity(), read=_read(config)
    )


def _read(config: Config):
    def read(split):
        plain, plain_labels = polymnist_family.digits(config.seed, config.validation_fraction, split)
        cluttered, cluttered_labels = svhn.read(split)
        if split != "test":
            rows = pairing.holdout(config.seed, cluttered_labels, config.validation_fraction)[split]
            cluttered, cluttered_labels = cluttered[rows], cluttered_labels[rows]
        return (plain, plain_labels), (lambda rows: cluttered[rows], np.asarray(cluttered_labels))

    return read
