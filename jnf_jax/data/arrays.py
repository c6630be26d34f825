"""Bring your own data: a dict of numpy arrays, an .npz file of them, or a folder of .npy files, which stream.

In a file each modality is an array `[N, *shape]` under its name, and the classes, where there are any, are under `labels`. In a folder they are
`<name>.npy` and `labels.npy`. The splits are drawn at random, deterministic in the seed.

Examples may lack modalities. An array `<name>_mask` `[N]` of booleans in the file says which examples have a modality, or a row with NaN stands for one
that is missing (`nan_is_missing`).
"""

import dataclasses
import functools
import pathlib
import zipfile
from collections.abc import Mapping

import numpy as np

from jnf_jax import specs as specs_lib
from jnf_jax.data import division, source, stream

LABELS = "labels"
_MASK = "_mask"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(division.Division):
    """Arrays from an .npz file, or a folder of .npy files.

    Attributes:
      path: of the file or the folder. A split of a folder stays in its files where it is larger than `resident`; training then reads its
        batches while the device computes.
      specs: modality -> spec; shapes, likelihoods and ranges are checked against the arrays.
      nan_is_missing: whether a modality with a NaN counts as missing from its example; otherwise a NaN is an error. Not in a folder.
      resident: largest size, in MiB, of a folder's split that is read into memory as a whole.
    """

    path: str = ""
    specs: Mapping[str, specs_lib.ModalitySpec] = dataclasses.field(default_factory=dict)
    nan_is_missing: bool = False
    resident: float = 256.0


def build(config: Config, split: source.Split) -> source.Source:
    """Returns one split of the file or folder.

    Raises:
      FileNotFoundError: if there is no such file, or a modality's is missing from the folder.
      ValueError: if it is no .npz file or no .npy file, or its arrays do not fit the specs.
    """
    source.check_split(split)
    if pathlib.Path(config.path).is_dir():
        return resident(_from_folder(config)[split], config.resident)
    arrays, labels = load(config.path)
    masks = {name: arrays.pop(key) for name in config.specs if (key := f"{name}{_MASK}") in arrays and key not in config.specs}
    if config.nan_is_missing:
        masks |= _without_nan(config.specs, arrays, masks)
    return splits(config.specs, arrays, labels, masks=masks or None, config=config)[split]


def load(path: str) -> tuple[dict[str, np.ndarray], np.ndarray | None]:
    """Returns the arrays and the labels (or None) of an .npz file; objects in it are refused."""
    if not pathlib.Path(path).is_file():
        raise FileNotFoundError(f"Expected an .npz file with one array a modality, got no file at {path!r}.")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (zipfile.BadZipFile, AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"Expected an .npz file of plain arrays at {path!r}: {error}") from error
    return arrays, arrays.pop(LABELS, None)


def resident(data: source.Source, mebibytes: float) -> source.Source:
    """Returns the data in memory where they are no larger than that, else as they are."""
    if sum(x.nbytes for x in data.arrays.values()) > mebibytes * 2**20:
        return data
    return dataclasses.replace(data, arrays={name: np.asarray(x) for name, x in data.arrays.items()})


def _from_folder(config: Config) -> dict[source.Split, source.Source]:
    if config.nan_is_missing:
        raise ValueError(
            f"Expected masks `<name>{_MASK}.npy` in a folder, got nan_is_missing=True, which would read all of it."
        )
    folder = pathlib.Path(config.path)
    if missing := [name for name in config.specs if not (folder / f"{name}.npy").is_file()]:
        raise FileNotFoundError(f"Expected {missing[0]}.npy in the folder {config.path!r}, got none.")
    rows = {
        name: stream.Rows(folder / f"{name}.npy", check=functools.partial(source.check_values, name, spec))
        for name, spec in config.specs.items()
    }
    small = lambda name: np.asarray(stream.Rows(path)) if (path := folder / f"{name}.npy").is_file() else None
    masks = {
        name: mask
        for name in config.specs
        if f"{name}{_MASK}" not in config.specs and (mask := small(f"{name}{_MASK}")) is not None
    }
    return splits(config.specs, rows, small(LABELS), masks=masks or None, config=config)


def splits(
    specs: specs_lib.Specs,
    arrays: Mapping[str, np.ndarray],
    labels: np.ndarray | None = None,
    *,
    masks: Mapping[str, np.ndarray] | None = None,
    config: division.Division | None = None,
    rows: Mapping[source.Split, np.ndarray] | None = None,
) -> dict[source.Split, source.Source]:
    """Returns train, validation and test parts of arrays in memory.

    Args:
      specs: modality -> spec.
      arrays: modality -> `[N, *shape]`.
      labels: `[N]` int, or None.
      masks: modality -> `[N]` bool, whether an example has it, for the modalities that some examples lack, or None. What stands in
        `arrays` for a missing modality does not matter.
      config: the seed and the fractions of the split; None: those of `division.Division`.
      rows: split -> numbers of its examples, where these are known; otherwise they are drawn.

    Raises:
      ValueError: if the arrays do not fit the specs, no training example has one of the modalities, or there are too few examples for three parts.
    """
    source.check_modalities(specs, arrays)
    if masks is not None:
        source.check_masks(specs, masks, source.check_lengths(specs, arrays))
        masks = {name: np.asarray(mask) for name, mask in masks.items()}
        absent = {name for name in masks if not isinstance(arrays[name], stream.Rows)}  # a file has valid data there already
        arrays = {name: _filled(specs[name], x, masks[name]) if name in absent else x for name, x in arrays.items()}
    source.check(specs, arrays, labels)
    rows = rows or division.rows(len(next(iter(arrays.values()))), config or division.Division())
    if never := [name for name, mask in (masks or {}).items() if not mask[rows["train"]].any()]:
        hint = "; one NaN in a row makes it a missing one" if getattr(config, "nan_is_missing", False) else ""
        raise ValueError(f"Expected a training example that has modality {never[0]!r}, got none{hint}.")
    return {
        name: source.Source(
            specs=specs,
            arrays={k: v.select(part) if isinstance(v, stream.Rows) else np.asarray(v)[part] for k, v in arrays.items()},
            labels=None if labels is None else np.asarray(labels)[part],
            masks=None if masks is None else {k: np.asarray(v)[part] for k, v in masks.items()},
            rows=part,
        )
        for name, part in rows.items()
    }


def _without_nan(specs: specs_lib.Specs, arrays: Mapping[str, np.ndarray], masks: Mapping[str, np.ndarray]) -> dict:
    """Returns modality -> `[N]` bool, whether an example has it and it holds no NaN, where some do."""
    found = {}
    for name in specs:
        x = np.asarray(arrays[name]) if name in arrays else np.zeros(0)
        if np.issubdtype(x.dtype, np.floating) and np.isnan(x).any():
            found[name] = ~np.isnan(x).any(tuple(range(1, x.ndim))) & masks.get(name, True)
    return found


def _filled(spec: specs_lib.ModalitySpec, x: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Returns the array with valid data where the modality is missing."""
    x = np.array(x)
    if spec.support is not None and np.issubdtype(x.dtype, np.floating):
        x[~mask] = spec.support[0]
    elif spec.values == "reals" and not spec.may_be_standardised and mask.any():
        x[~mask] = x[mask][0]  # 0 may be none of its values
    else:
        x[~mask] = 0
    if (
        spec.values == "categories"
        and np.issubdtype(x.dtype, np.floating)
        and np.isfinite(x).all()
        and (x == np.floor(x)).all()
    ):
        return x.astype(np.int32)  # numbers beside NaN had to be floats
    return x
