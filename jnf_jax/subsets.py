"""Subsets of the modalities, as tuples of names in the modalities' own order."""

import itertools
from collections.abc import Iterable, Sequence

Subset = tuple[str, ...]


def of_size(names: Sequence[str], size: int) -> list[Subset]:
    """Returns every subset of `size` names."""
    return list(itertools.combinations(names, size))


def proper(names: Sequence[str]) -> list[Subset]:
    """Returns every subset but the empty and the full one, by size."""
    return [s for size in range(1, len(names)) for s in of_size(names, size)]


def ordered(names: Sequence[str], subset: Iterable[str]) -> Subset:
    """Returns `subset` in the order of `names`.

    Raises:
      ValueError: if it holds a name that `names` does not.
    """
    subset = set(subset)
    if unknown := subset - set(names):
        raise ValueError(f"Expected modalities of {list(names)}, got {sorted(unknown)}.")
    return tuple(n for n in names if n in subset)


def parse(names: Sequence[str], text: str) -> Subset:
    """Returns the subset that `text` lists, separated by commas: `"m0,m2"`; the empty text is the empty subset."""
    return ordered(names, [t.strip() for t in text.split(",") if t.strip()])


def label(subset: Iterable[str]) -> str:
    """Returns the subset's name in tables and files: `m0+m2`, or `prior` for the empty one."""
    return "+".join(subset) or "prior"
