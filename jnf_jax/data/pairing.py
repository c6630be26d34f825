"""Pairs examples by class: what makes several views of one thing out of separate data sets."""

import zlib

import numpy as np

from jnf_jax.data import source


def generator(seed: int, split: source.Split, name: str = "") -> np.random.Generator:
    """Returns the random numbers of one part of a split; each name has its own, whatever else is drawn."""
    return np.random.default_rng([seed, source.SPLITS.index(split), zlib.crc32(name.encode())])


def holdout(seed: int, labels: np.ndarray, fraction: float) -> dict[str, np.ndarray]:
    """Returns the indices of `train` and of `validation`, which gets about `fraction` of every class.

    Raises:
      ValueError: if the fraction is none, or either part would be empty.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"Expected a fraction between 0 and 1, got {fraction}.")
    rng = generator(seed, "validation", "holdout")
    held = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        held[members[: round(fraction * len(members))]] = True
    if held.all() or not held.any():
        raise ValueError(f"Expected a fraction that leaves both parts an example, got {fraction} of {len(labels)} examples.")
    return {"train": np.flatnonzero(~held), "validation": np.flatnonzero(held)}


def matched(rng: np.random.Generator, labels: np.ndarray, pool: np.ndarray) -> np.ndarray:
    """Returns an example of each one's class, every candidate of a class about as often as any other.

    Args:
      rng: of the pairing.
      labels: `[N]` the wanted classes.
      pool: `[P]` the candidates' classes.

    Returns:
      `[N]` indices into the pool.

    Raises:
      ValueError: if a class has no candidate.
    """
    chosen = np.empty(len(labels), np.int64)
    for label in np.unique(labels):
        rows, candidates = np.flatnonzero(labels == label), np.flatnonzero(pool == label)
        if not len(candidates):
            raise ValueError(f"Expected an example of every class to pair with, got none of class {label}.")
        rounds = -(-len(rows) // len(candidates))
        chosen[rows] = np.concatenate([rng.permutation(candidates) for _ in range(rounds)])[: len(rows)]
    return chosen
