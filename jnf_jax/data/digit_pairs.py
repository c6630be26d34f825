"""What the data sets of a plain and a cluttered digit share: the pairing of MNIST-SVHN."""

import dataclasses
import functools
from collections.abc import Callable, Mapping

import numpy as np

from jnf_jax.data import pairing, polymnist_family, prepared, source

Read = Callable[[source.Split], tuple[tuple[np.ndarray, np.ndarray], tuple[Callable[[np.ndarray], np.ndarray], np.ndarray]]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(polymnist_family.Config):
    """What the data sets of a plain and a cluttered digit are made with.

    Attributes:
      seed: of everything random: what is held out, the pairing, patches where the set is made here.
      validation_fraction: share of the training digits kept for validation.
      pairs_per_digit: times that each digit is paired.
      max_per_class: most digits of a class.
      likelihood: of the images; see `polymnist_family.Config`.
      scale: b of the Laplace likelihood, standard deviation of the Gaussian one, in units of an intensity in [0, 1].
    """

    pairs_per_digit: int = 5
    max_per_class: int = 10_000

    def __post_init__(self):
        super().__post_init__()
        if self.pairs_per_digit < 1 or self.max_per_class < 1:
            raise ValueError(
                f"Expected at least one pair a digit and one digit a class, got {self.pairs_per_digit} and {self.max_per_class}."
            )


def load(
    config: Config, split: source.Split, *, plain: str, cluttered: str, raw: Mapping[str, str], read: Read
) -> source.Source:
    """Returns one split.

    Args:
      config: of the data set.
      split: which.
      plain: name of the modality of 28x28x1.
      cluttered: name of the modality of 32x32x3.
      raw: name -> checksum of the raw files.
      read: split -> (digits `[P, 28, 28]`, their classes) and (function from rows to images `[.., 32, 32, 3]`, their classes `[Q]`).
    """

    def make(split):
        (digits, classes), (images, image_classes) = read(split)
        rng = pairing.generator(config.seed, split, "pairs")
        first, second = pairs(rng, classes, image_classes, repeats=config.pairs_per_digit, most=config.max_per_class)
        views = {plain: lambda rows: digits[first[rows]][..., None], cluttered: lambda rows: images(second[rows])}
        return prepared.Examples(classes[first], views)

    image = functools.partial(polymnist_family.image_spec, config)
    return prepared.load(
        config,
        split,
        specs={plain: image((28, 28, 1)), cluttered: image((32, 32, 3))},
        dtypes={plain: np.uint8, cluttered: np.uint8},
        raw=raw,
        make=make,
    )


def pairs(
    rng: np.random.Generator, first: np.ndarray, second: np.ndarray, *, repeats: int, most: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns indices into both of pairs of one class, shuffled: of each class the first n of either, n the smaller number, at most `most`.

    Each round pairs every one of them once, at random; there are `repeats` rounds.
    """
    chosen: tuple[list, list] = ([], [])
    for label in np.intersect1d(first, second):
        members = [np.flatnonzero(classes == label) for classes in (first, second)]
        num = min(*map(len, members), most)
        for _ in range(repeats):
            for out, rows in zip(chosen, members, strict=True):
                out.append(rng.permutation(rows[:num]))
    if not chosen[0]:
        raise ValueError("Expected classes that occur in both modalities, got none.")
    order = rng.permutation(sum(map(len, chosen[0])))
    return np.concatenate(chosen[0])[order], np.concatenate(chosen[1])[order]
