"""What every data set returns: arrays in memory, or in files, beside the specs of their modalities. No jax here."""

import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import Literal

import numpy as np

from jnf_jax import specs as specs_lib
from jnf_jax.data import stream

Split = Literal["train", "validation", "test"]
SPLITS = ("train", "validation", "test")

_SUMMARISED = 64  # examples
_VALUES = 1_000  # of each of them


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """One split of a data set.

    Attributes:
      specs: modality -> spec; its order is the order of the modalities everywhere.
      arrays: modality -> `[N, *shape]`, numpy arrays, or `stream.Rows` that are read where they are indexed; uint8 stands for the two
        ends of a real modality's support.
      labels: class of each example `[N]` int, or None.
      masks: modality -> `[N]` bool, whether an example has it, for the modalities that some examples lack; None where all have all. What stands in
        `arrays` for a missing modality is valid data without a meaning.
      rows: name of each example in the files that were read and divided, or its number where it has none, `[N]`; None: nobody divided it.
    """

    specs: specs_lib.Specs
    arrays: Mapping[str, np.ndarray]
    labels: np.ndarray | None = None
    masks: Mapping[str, np.ndarray] | None = None
    rows: np.ndarray | None = None

    def __post_init__(self):
        check(self.specs, self.arrays, self.labels)
        check_masks(self.specs, self.masks, len(self))

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values())))

    def take(self, num: int) -> "Source":
        """Returns the first `num` examples."""
        return self.select(np.s_[:num])

    def select(self, rows: slice | np.ndarray) -> "Source":
        """Returns the examples of these numbers, or where a mask `[N]` is true; in memory."""
        return Source(
            specs=self.specs,
            arrays={name: x[rows] for name, x in self.arrays.items()},
            labels=None if self.labels is None else self.labels[rows],
            masks=None if self.masks is None else {name: mask[rows] for name, mask in self.masks.items()},
            rows=None if self.rows is None else self.rows[rows],
        )

    def summary(self) -> dict:
        """Returns what tells one data set from another, as JSON values.

        The number of examples; and of each modality mean and standard deviation over at most 64 examples that have it, evenly spaced, and at
        most a thousand values of each, beside the number of examples that have it where some lack it. Mean and deviation are rounded to about
        a thousandth of the deviation: another processor may compute the same data with other last digits.
        """
        found: dict = {"examples": len(self)}
        for name, x in self.arrays.items():
            mask = None if self.masks is None else self.masks.get(name)
            having = np.arange(len(self)) if mask is None else np.flatnonzero(mask)
            found[name] = _moments(x, having) | ({} if mask is None else {"present": len(having)})
        return found

    def having(self, names: Iterable[str]) -> np.ndarray:
        """Returns whether each example has all of these modalities, `[N]` bool."""
        masks = self.masks or {}
        return np.all([masks[name] for name in names if name in masks] or [np.ones(len(self), bool)], axis=0)

    def batch(self) -> dict:
        """Returns what training takes: the arrays, and the masks under `specs.MASKS` where there are any."""
        return dict(self.arrays) | ({specs_lib.MASKS: dict(self.masks)} if self.masks else {})

    def complete(self) -> "Source":
        """Returns the examples that have every modality; what lies in files stays there.

        Raises:
          ValueError: if there is none.
        """
        if not self.masks:
            return self
        rows = np.all(list(self.masks.values()), axis=0)
        if not rows.any():
            raise ValueError("Expected an example that has every modality, got none.")
        rows = np.flatnonzero(rows)
        chosen = {name: x.select(rows) if isinstance(x, stream.Rows) else x[rows] for name, x in self.arrays.items()}
        labels = None if self.labels is None else self.labels[rows]
        numbers = None if self.rows is None else self.rows[rows]
        return dataclasses.replace(self, arrays=chosen, labels=labels, masks=None, rows=numbers)


def _moments(x: np.ndarray | stream.Rows, rows: np.ndarray) -> dict[str, float]:
    """Returns rounded mean and standard deviation of some of the examples of these numbers, which are read one by one."""
    if not len(rows):
        return {}
    chosen = rows[np.unique(np.linspace(0, len(rows) - 1, _SUMMARISED).astype(int))]
    parts = [np.asarray(x[i : i + 1]).reshape(-1) for i in map(int, chosen)]
    values = np.concatenate([part[:: max(1, part.size // _VALUES)].astype(float) for part in parts])
    mean, deviation = float(values.mean()), float(values.std())
    unit = max(deviation * 1e-3, abs(mean) * 1e-4)  # float32 has seven digits
    digits = -math.ceil(math.log10(unit)) if unit > 0 else 0
    return {"mean": round(mean, digits) + 0.0, "deviation": round(deviation, digits) + 0.0}


def check_split(split: str) -> None:
    """Raises a ValueError for an unknown split."""
    if split not in SPLITS:
        raise ValueError(f"Expected a split of {SPLITS}, got {split!r}.")


def num_examples(config: object, split: str) -> int:
    """Returns `config.num_<split>`.

    Raises:
      ValueError: if the split is unknown or its number of examples is not positive.
    """
    check_split(split)
    num = getattr(config, f"num_{split}")
    if num < 1:
        raise ValueError(f"Expected at least one example in {split}, got {num}.")
    return num


def check(specs: specs_lib.Specs, arrays: Mapping[str, np.ndarray], labels: np.ndarray | None = None) -> None:
    """Checks arrays against their specs.

    Raises:
      ValueError: on missing or unknown modalities, a wrong shape, length or dtype, NaN or infinity, or values that the
        modality's likelihood gives no density; the message names the modality and the value.
    """
    check_modalities(specs, arrays)
    num = check_lengths(specs, arrays)
    for name, spec in specs.items():
        # what stays in a file is checked as it is read
        check_values(name, spec, arrays[name][:1] if isinstance(arrays[name], stream.Rows) else np.asarray(arrays[name]))
    if labels is not None:
        labels = np.asarray(labels)
        if labels.shape != (num,) or not np.issubdtype(labels.dtype, np.integer):
            raise ValueError(f"Expected integer labels of shape ({num},), got {labels.dtype} {labels.shape}.")
        if labels.min() < 0:
            raise ValueError(f"Expected labels of 0 and more, got {labels.min()}.")


def check_modalities(specs: specs_lib.Specs, arrays: Mapping[str, np.ndarray]) -> None:
    """Raises a ValueError where there is no modality, one has a name that none can have, or arrays are those of others."""
    if not specs:
        raise ValueError("Expected at least one modality, got none.")
    specs_lib.check_names(specs)
    if set(arrays) != set(specs):
        raise ValueError(f"Expected arrays for the modalities {sorted(specs)}, got {sorted(arrays)}.")


def check_lengths(specs: specs_lib.Specs, arrays: Mapping[str, np.ndarray]) -> int:
    """Returns the number of examples; raises a ValueError where it is 0, or not the same in every modality."""
    lengths = {name: len(arrays[name]) if np.ndim(arrays[name]) else 0 for name in specs}
    if len(set(lengths.values())) != 1:
        raise ValueError(f"Expected as many examples in every modality, got {lengths}.")
    if not (num := next(iter(lengths.values()))):
        raise ValueError("Expected at least one example, got none.")
    return num


def check_masks(specs: specs_lib.Specs, masks: Mapping[str, np.ndarray] | None, num: int) -> None:
    """Checks the masks of `num` examples.

    Raises:
      ValueError: on a mask of an unknown modality, a wrong shape or dtype, or an example that has no modality.
    """
    if masks is None:
        return
    if unknown := set(masks) - set(specs):
        raise ValueError(f"Expected masks of modalities of {list(specs)}, got {sorted(unknown)}.")
    for name, mask in masks.items():
        if np.shape(mask) != (num,) or np.asarray(mask).dtype != bool:
            raise ValueError(
                f"Expected a mask of booleans ({num},) for {name!r}, got {np.asarray(mask).dtype} {np.shape(mask)}."
            )
    if set(masks) == set(specs) and not (some := np.any(list(masks.values()), axis=0)).all():
        raise ValueError(
            f"Expected a modality in every example, got none in {int((~some).sum())} of {num}, the first is example "
            f"{int(np.argmin(some))}: leave them out."
        )


def check_values(name: str, spec: specs_lib.ModalitySpec, x: np.ndarray) -> None:
    """Raises a ValueError that names the modality where some of its values `[N, *shape]` do not fit its spec."""
    if x.shape[1:] != spec.shape:
        raise ValueError(f"Expected modality {name!r} of shape (N, {', '.join(map(str, spec.shape))}), got {x.shape}.")
    if not (np.issubdtype(x.dtype, np.floating) or np.issubdtype(x.dtype, np.integer) or x.dtype == bool):
        raise ValueError(f"Expected numbers for modality {name!r}, got dtype {x.dtype}.")
    if not x.dtype.isnative:
        native = x.dtype.newbyteorder("=")
        raise ValueError(
            f"Expected this machine's byte order for modality {name!r}, got {x.dtype.str}: `x.astype('{native}')`."
        )
    if np.issubdtype(x.dtype, np.floating) and not np.isfinite(x).all():
        first = tuple(int(i) for i in np.argwhere(~np.isfinite(x))[0])
        raise ValueError(f"Expected finite values for modality {name!r}, got {x[first]} at {first}.")
    low, high = float(x.min()), float(x.max())
    match spec.values:
        case "categories":
            if not np.issubdtype(x.dtype, np.integer):
                raise ValueError(f"Expected integer categories for modality {name!r}, got dtype {x.dtype}.")
            _check_range(name, low, high, 0, spec.num_categories - 1)
        case "binary":
            _check_range(name, low, high, 0, 1)
            if ((x != 0) & (x != 1)).any():
                value = x[(x != 0) & (x != 1)][0]
                raise ValueError(f"Expected 0 or 1 for the {spec.likelihood_name} modality {name!r}, got {value}.")
        case "counts":
            if low < 0 or (x != np.floor(x)).any():
                value = x[(x < 0) | (x != np.floor(x))][0]
                raise ValueError(f"Expected counts, whole numbers of 0 and more, for modality {name!r}, got {value}.")
        case _:
            _check_real(name, spec, x, low, high)


def _check_real(name: str, spec: specs_lib.ModalitySpec, x: np.ndarray, low: float, high: float) -> None:
    if np.issubdtype(x.dtype, np.floating):
        if spec.support is not None:
            _check_range(name, low, high, *(float(np.asarray(end, x.dtype)) for end in spec.support))  # as precise as the data
    elif x.dtype != np.uint8 or spec.support is None:
        raise ValueError(
            f"Expected floats (or uint8 with a support) for the {spec.likelihood_name} modality {name!r}, got dtype {x.dtype}."
        )


def _check_range(name: str, low: float, high: float, smallest: float, largest: float) -> None:
    for value in (low, high):
        if not smallest <= value <= largest:
            raise ValueError(f"Expected values of modality {name!r} in [{smallest}, {largest}], got {value}.")
