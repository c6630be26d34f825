"""Subsets of the modalities, as tuples of names in the modalities' own order."""

import itertools
import random
from collections.abc import Iterable, Sequence

Subset = tuple[str, ...]


def of_size(names: Sequence[str], size: int) -> list[Subset]:
    """Returns every subset of `size` names."""
    return list(itertools.combinations(names, size))


def proper(names: Sequence[str]) -> list[Subset]:
    """Returns every subset but the empty and the full one, by size."""
    return [s for size in range(1, len(names)) for s in of_size(names, size)]


def choose(names: Sequence[str], how: str) -> list[Subset]:
    """Returns proper subsets to look at, by size; the same ones for the same arguments.

    Args:
      names: of the modalities.
      how: `all`; `sizes`, four of every size, evenly spaced, or `sizes:N`, N of every size; `random:N`, N drawn from all of them.

    Raises:
      ValueError: if it is none of these, or N is not positive.
    """
    kind, _, number = how.partition(":")
    most = int(number) if number.isdigit() else None
    if how == "all":
        return proper(names)
    if (how == "sizes" or (kind == "sizes" and most)) and len(names) > 1:
        return [s for size in range(1, len(names)) for s in _spaced(of_size(names, size), most or 4)]
    if kind == "random" and most:
        every = range(1, 2 ** len(names) - 1)  # bit i stands for the i-th name
        drawn = every if most >= len(every) else random.Random(0).sample(every, most)
        found = [tuple(n for i, n in enumerate(names) if bits >> i & 1) for bits in drawn]
        return sorted(found, key=lambda s: (len(s), [names.index(n) for n in s]))
    raise ValueError(f"Expected subsets 'all', 'sizes', 'sizes:N' or 'random:N' with a positive N, got {how!r}.")


def _spaced(items: list, most: int) -> list:
    if len(items) <= most:
        return items
    return [items[round(i * (len(items) - 1) / max(most - 1, 1))] for i in range(most)]


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
