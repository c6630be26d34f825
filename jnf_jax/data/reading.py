"""What the readers of people's files share: specs read off the data, rows matched by their keys, words made numbers.

A reader exports `read(config) -> Read`, the arrays of its files, one a modality, and hands them to `divided`.
"""

import dataclasses
import importlib
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from jnf_jax import specs as specs_lib
from jnf_jax.data import arrays as arrays_lib
from jnf_jax.data import division, source

_NAMED = 3  # of the examples that an error is about
_BLOCK = 2**22  # values that are standardised at once
_FAR = 1_000  # what no class is numbered by
_MOST_KINDS = 20  # of words in a column, above which they should repeat


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(division.Division):
    """What every reader takes.

    Attributes:
      specs: modality -> spec, in place of the one that is read off the data.
      scale: of the likelihood of real modalities whose spec is read off the data.
      standardise: whether real values without a support are shifted and scaled, column by column, to mean 0 and standard deviation 1 of the
        training examples; by the mean and deviation of a given spec where it has them. The spec remembers by what, and its scale, given or
        read off, is in standard deviations.
      incomplete: whether examples that lack modalities are kept, under masks; otherwise one that does is an error.
    """

    specs: Mapping[str, specs_lib.ModalitySpec] = dataclasses.field(default_factory=dict)
    scale: float = 0.5
    standardise: bool = True
    incomplete: bool = False


def optional(module: str, extra: str) -> ModuleType:
    """Returns a module that not every installation has.

    Raises:
      ValueError: if it is missing; the message says how to install it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ValueError(
            f'Expected the package {module!r} to read such data, got none: pip install "jnf_jax[{extra}]" ({error})'
        ) from error


class Read(NamedTuple):
    """What a reader found in its files."""

    # modality -> [N, *shape]: numbers, or words of one column; anything for a missing example
    arrays: Mapping[str, np.ndarray]
    labels: np.ndarray | None  # [N] numbers or words
    masks: Mapping[str, np.ndarray]  # modality -> [N] bool, whether an example has it
    keys: Sequence[Any]  # [N], the examples' names, or their numbers where they have none
    counts: Sequence[str] = ()  # modalities whose whole numbers of 0 and more are counts
    columns: Mapping[str, Sequence[str]] = {}  # modality -> the names of its entries, where they have some
    test: np.ndarray | None = None  # numbers of the examples kept for testing; None: they are drawn


def divided(config: Options, split: source.Split, found: Read) -> source.Source:
    """Returns one split of what a reader of this config found.

    Raises:
      ValueError: if an example lacks a modality and `incomplete` is off, or an array does not fit its spec.
    """
    arrays, labels, masks, keys, counts, columns, test = found
    check_names(config.specs, arrays, "specs")
    masks = {name: mask for name, mask in masks.items() if not mask.all()}
    if not config.incomplete:
        for name, mask in masks.items():
            raise ValueError(
                f"Expected modality {name!r} in every example, got none in {some([keys[i] for i in np.flatnonzero(~mask)])}: "
                "incomplete=True keeps examples that lack modalities."
            )
    rows = division.rows(len(keys), config, test=test)
    specs, made = {}, {}
    for name, x in arrays.items():
        there = masks.get(name, np.ones(len(keys), bool))
        train = rows["train"][there[rows["train"]]]
        if not len(train):
            raise ValueError(f"Expected modality {name!r} in some training example, got it in none.")
        if x.dtype.kind == "f" and (bad := there & ~_finite_rows(x)).any():
            raise ValueError(
                f"Expected finite values for modality {name!r}, got others in {some([keys[i] for i in np.flatnonzero(bad)])}."
            )
        specs[name], made[name] = _modality(config, name, x, there, train, counts=name in counts, columns=columns.get(name))
    part = arrays_lib.splits(
        specs, made, None if labels is None else classes(labels), masks=masks or None, config=config, rows=rows
    )[split]
    return dataclasses.replace(part, rows=np.asarray(keys)[part.rows])


def check_names(found: Mapping[str, Any], modalities: Mapping[str, Any], what: str) -> None:
    """Raises a ValueError where `found` names a modality that there is not."""
    if unknown := set(found) - set(modalities):
        raise ValueError(f"Expected {what} of modalities of {list(modalities)}, got {sorted(unknown)}.")


def classes(values: np.ndarray) -> np.ndarray:
    """Returns the classes `[N]` int32 of labels.

    Whole numbers of 0 and more that int32 holds stay as they are, also where they are written as floats, or as words and not far from 0;
    anything else is replaced by its place among the sorted values.
    """
    values = np.asarray(values)
    if values.dtype.kind not in "biuf":
        values = values.astype(str)
        known = np.unique(values)
        digits = all(word.isascii() and word.isdecimal() and len(word) < 10 for word in known)
        found = set(map(int, known)) if digits else set()
        near = len(found) == len(known) and max(found) < max(_FAR, 10 * len(found))  # years and postcodes are names
        values = values.astype(int) if near else values
    if values.dtype.kind in "iuf" and _whole(values) and values.min() >= 0 and values.max() <= np.iinfo(np.int32).max:
        return values.astype(np.int32)
    return np.unique(values, return_inverse=True)[1].astype(np.int32)


def match(keys: Mapping[str, Sequence[str]]) -> tuple[list[str], dict[str, np.ndarray]]:
    """Returns all keys, sorted, and modality -> the row `[N]` that each of them has there, -1 where it has none.

    Args:
      keys: modality -> the key of every row.

    Raises:
      ValueError: if a modality has a key twice.
    """
    rows = {}
    for name, mine in keys.items():
        rows[name] = {key: i for i, key in enumerate(mine)}
        if len(rows[name]) < len(mine):
            twice = sorted(key for i, key in enumerate(mine) if rows[name][key] != i)
            raise ValueError(f"Expected every example once in modality {name!r}, got {some(twice)} again.")
    every = sorted(set().union(*rows.values()))
    return every, {name: np.asarray([mine.get(key, -1) for key in every], int) for name, mine in rows.items()}


def some(names: Sequence[Any]) -> str:
    """Returns the first of a list for a message."""
    shown = ", ".join(repr(str(name)) for name in names[:_NAMED])
    return shown + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")


def _modality(
    config: Options,
    name: str,
    x: np.ndarray,
    there: np.ndarray,
    train: np.ndarray,
    *,
    counts: bool,
    columns: Sequence[str] | None,
) -> tuple[specs_lib.ModalitySpec, np.ndarray]:
    """Returns the spec of a modality, given or read off, and its data as that spec takes them."""
    if x.dtype.kind in "OUS":
        given = config.specs.get(name)
        known, places = _words(name, x[there].astype(str), None if given is None else given.labels)
        x = np.zeros(x.shape, np.int32)
        x[there] = places.reshape(-1, *x.shape[1:])
        inferred = {"likelihood": "categorical", "num_categories": max(len(known), 2)}
        if len(known) > 1:
            inferred["labels"] = tuple(map(str, known))
    elif x.dtype == np.uint8 and x.ndim > 2 and (x if there.all() else x[there]).max() != 1:  # images of 0 and 1 are masks
        inferred = {"likelihood": "laplace", "scale": config.scale, "support": (0.0, 1.0)}
    elif np.isin(x[there], (0, 1)).all():
        inferred = {"likelihood": "bernoulli"}
    elif counts and x[:1].size > 1 and _whole(x[there]) and not (x[there] < 0).any():
        library = float(x[train].reshape(len(train), -1).sum(1, dtype=float).mean())
        inferred = {"likelihood": "negative_binomial", "library": library}
    else:
        inferred = {"likelihood": "gaussian", "scale": config.scale}
    if columns is not None and "labels" not in inferred and len(columns) > 1:
        inferred["labels"] = tuple(columns)
    spec = config.specs.get(name) or specs_lib.ModalitySpec(shape=x.shape[1:], **inferred)
    if spec.values == "reals":
        return (spec, x) if x.dtype == np.uint8 and spec.support else _real(config, name, spec, x, train)
    if spec.values == "categories" and _whole(x[there]):
        x = np.where(there.reshape(-1, *[1] * (x.ndim - 1)), x, 0).astype(np.int32)
    return spec, x


def _finite_rows(x: np.ndarray) -> np.ndarray:
    """Returns whether every value of a row is finite, `[N]` bool, a block of rows at a time."""
    height = max(1, _BLOCK // max(1, x[:1].size))
    blocks = (x[start : start + height] for start in range(0, len(x), height))
    return np.concatenate([np.isfinite(block).reshape(len(block), -1).all(1) for block in blocks])


def _words(name: str, words: np.ndarray, labels: Sequence[str] | None) -> tuple[np.ndarray, np.ndarray]:
    """Returns the categories and every word's place among them: those of the given labels in their order, else the sorted words."""
    known, places = np.unique(words, return_inverse=True)
    if labels is not None:
        if others := sorted(set(known) - set(labels)):
            raise ValueError(f"Expected words of {labels} in modality {name!r}, got {some(others)}.")
        return np.asarray(labels), np.asarray([labels.index(word) for word in known])[places]
    if len(known) > max(_MOST_KINDS, len(words) / 2):
        raise ValueError(
            f"Expected categories that repeat in modality {name!r}, got {len(known)} words in {len(words)} examples."
        )
    others = [word for word in known if not _is_number(word)]
    if len(known) > _MOST_KINDS and 0 < len(others) < len(known) / 10:
        raise ValueError(
            f"Expected numbers or words in modality {name!r}, got numbers and {some(others)}: a spec with labels keeps all as words."
        )
    return known, places


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _real(
    config: Options, name: str, spec: specs_lib.ModalitySpec, x: np.ndarray, train: np.ndarray
) -> tuple[specs_lib.ModalitySpec, np.ndarray]:
    """Returns the spec and the values of a real modality, standardised where the reader does so."""
    if not config.standardise or not spec.may_be_standardised:
        if spec.mean is not None:
            raise ValueError(f"Expected no mean in the spec of {name!r}, whose values are not standardised, got one.")
        return spec, x.astype(np.float32)
    if spec.scale > 1:
        raise ValueError(
            f"Expected a scale of at most 1 for modality {name!r}, whose values are standardised, got {spec.scale}: there it counts "
            "standard deviations; standardise=False keeps the values as they are."
        )
    out = np.empty(x.shape, np.float32)
    flat, scaled = x.reshape(len(x), -1), out.reshape(len(x), -1)
    given = spec.mean is not None
    mean, deviation = (np.asarray(values) if given else np.empty(flat.shape[1]) for values in (spec.mean, spec.deviation))
    width = max(1, _BLOCK // len(x))
    for start in range(0, flat.shape[1], width):  # of columns: double precision takes memory
        block = flat[:, start : start + width].astype(np.float64)  # single precision loses small deviations from a large mean
        part = block[train]
        columns = np.s_[start : start + width]
        if not given:
            mean[columns] = part.mean(0)
            deviation[columns] = np.where(part.min(0) == part.max(0), 1, part.std(0))
        scaled[:, columns] = (block - mean[columns]) / deviation[columns]
    return dataclasses.replace(spec, mean=tuple(mean.tolist()), deviation=tuple(deviation.tolist())), out


def _whole(x: np.ndarray) -> bool:
    return x.dtype.kind != "f" or bool((x == np.floor(x)).all())
