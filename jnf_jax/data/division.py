"""How examples that nobody has divided yet become three parts: at random, deterministically in the seed."""

import dataclasses

import numpy as np

from jnf_jax import configs
from jnf_jax.data import source


@dataclasses.dataclass(frozen=True, kw_only=True)
class Division(configs.Component):
    """A division into train, validation and test.

    Attributes:
      seed: of the split.
      validation_fraction: share of the examples kept for validation.
      test_fraction: share of the examples kept for testing.
    """

    seed: int = 0
    validation_fraction: float = 0.1
    test_fraction: float = 0.1


def rows(num: int, config: Division, *, test: np.ndarray | None = None) -> dict[source.Split, np.ndarray]:
    """Returns split -> numbers of its examples, out of `num`; no example is in two.

    Args:
      num: number of examples.
      config: the seed and the fractions.
      test: numbers of the examples that are kept for testing, whatever `test_fraction` says; None: they are drawn too. They are mixed as well:
        an evaluation takes the first ones, and published test examples may be sorted by class.

    Raises:
      ValueError: if there are too few examples for three parts.
    """
    order = np.random.default_rng(config.seed).permutation(num)
    if test is not None:
        kept = np.isin(order, test)
        order = np.concatenate([order[~kept], order[kept]])
    counts = [round(config.validation_fraction * num), round(config.test_fraction * num) if test is None else len(test)]
    if min(counts) < 1 or sum(counts) >= num:
        raise ValueError(
            f"Expected fractions that leave an example for each of {source.SPLITS}, got {config.validation_fraction} and "
            f"{config.test_fraction} of {num} examples."
        )
    parts = np.split(order, [num - sum(counts), num - counts[1]])
    return dict(zip(source.SPLITS, parts, strict=True))
