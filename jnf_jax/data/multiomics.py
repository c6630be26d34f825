"""Measurements of cells in AnnData and MuData files: one modality for each of several .h5ad files, or for each part of an .h5mu file.

Cells are matched by their names (`obs_names`). Counts are read off as such and get the negative binomial likelihood; 0 and 1 are Bernoulli.
"""

import dataclasses
import pathlib
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from jnf_jax.data import reading, source

EXTRA = "omics"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(reading.Options):
    """Files of cells.

    Attributes:
      path: of an .h5mu file.
      paths: modality -> .h5ad file, in place of `path`.
      modalities: parts of the .h5mu file that are read; all where not given.
      layers: modality -> layer that is read in place of X.
      label: column of `obs` that holds the classes; None: there is none.
    """

    path: str | None = None
    paths: Mapping[str, str] = dataclasses.field(default_factory=dict)
    modalities: tuple[str, ...] = ()
    layers: Mapping[str, str] = dataclasses.field(default_factory=dict)
    label: str | None = None


def build(config: Config, split: source.Split) -> source.Source:
    """Returns one split.

    Raises:
      FileNotFoundError: if a file is missing.
      ValueError: if anndata or mudata is missing, a file is none of theirs, or a part, layer or column is unknown.
    """
    source.check_split(split)
    return reading.divided(config, split, read(config))


def read(config: Config) -> reading.Read:
    """Returns what is in the files; errors as of `build`."""
    parts, whole = _parts(config)
    reading.check_names(config.layers, parts, "layers")
    keys, rows = reading.match({name: list(part.obs_names) for name, part in parts.items()})
    arrays = {name: _matrix(name, part, config.layers.get(name))[rows[name]] for name, part in parts.items()}
    masks = {name: mine >= 0 for name, mine in rows.items()}
    labels = None if config.label is None else _labels(config.label, [*whole, *(part.obs for part in parts.values())], keys)
    return reading.Read(arrays, labels, masks, keys, counts=tuple(parts))


def _parts(config: Config) -> tuple[dict[str, Any], list]:
    """Returns modality -> its AnnData, and the tables of all cells, of which an .h5mu file has one."""
    if bool(config.path) == bool(config.paths):
        raise ValueError(
            f"Expected either the path of an .h5mu file or paths of .h5ad files, got {config.path!r} and {config.paths}."
        )
    if config.paths:
        return {name: _read("anndata", "read_h5ad", path) for name, path in config.paths.items()}, []
    whole = _read("mudata", "read_h5mu", config.path)
    names = config.modalities or tuple(whole.mod)
    reading.check_names(dict.fromkeys(names), whole.mod, "parts")
    return {name: whole.mod[name] for name in names}, [whole.obs]


def _read(package: str, function: str, path: str):
    module = reading.optional(package, EXTRA)
    if not pathlib.Path(path).is_file():
        raise FileNotFoundError(f"Expected a file that {package} wrote, got no file at {path!r}.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of how tables of cells will be joined; they are not used
            return getattr(module, function)(path)
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"Expected a file that {package} wrote at {path!r}, got another one: {error}") from error


def _matrix(name: str, part, layer: str | None) -> np.ndarray:
    """Returns the measurements `[N, features]`."""
    if layer is not None and layer not in part.layers:
        raise ValueError(f"Expected a layer of {list(part.layers)} for modality {name!r}, got {layer!r}.")
    x = part.X if layer is None else part.layers[layer]
    if x is None:
        raise ValueError(f"Expected measurements in X of modality {name!r}, got none; its layers are {list(part.layers)}.")
    return np.asarray(x.toarray() if hasattr(x, "toarray") else x)


def _labels(column: str, tables: list, keys: list[str]) -> np.ndarray:
    """Returns the classes of cells, from the tables in turn that have the column."""
    known: dict = {}
    tables = [table for table in tables if column in table]
    if not tables:
        raise ValueError(f"Expected a column of `obs` for the classes, got {column!r}, which no modality has.")
    for table in reversed(tables):
        known |= table[column].dropna().to_dict()
    if unknown := [key for key in keys if key not in known]:
        raise ValueError(f"Expected a class in {column!r} for every cell, got none for {reading.some(unknown)}.")
    return np.asarray([known[key] for key in keys])
