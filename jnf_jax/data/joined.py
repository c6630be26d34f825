"""Several readers of one set of examples: scans in folders, their blood tests in a table. Rows are matched by their names.

    joined.Config(readers={
        "scans": image_folders.Config(path="scans"),                                # scans/mri/p001.png
        "table": tables.Config(path="patients.csv", columns={..}, key="patient"),   # p001, ..
    })

Names are those of images without their endings, of cells, and of a table's column `key`.
"""

import dataclasses
import importlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from jnf_jax import configs
from jnf_jax.data import reading, source


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(reading.Options):
    """Readers whose examples are matched.

    Attributes:
      readers: configs of `image_folders`, `tables` or `multiomics`, each under a name of your own. What all readers take (the seed, specs,
        `incomplete`, ..) is set here and not in them. At most one has classes.
    """

    readers: Mapping[str, configs.Component] = dataclasses.field(default_factory=dict)


def build(config: Config, split: source.Split) -> source.Source:
    """Returns one split.

    Raises:
      FileNotFoundError: if a file is missing.
      ValueError: if there is no reader, one cannot read its files, has no names of examples or shares none with any other, two have a modality
        of one name or classes, or an example has no class where others have.
    """
    source.check_split(split)
    if not config.readers:
        raise ValueError("Expected readers to join, got none.")
    found = {name: _read(name, reader) for name, reader in config.readers.items()}
    _check_shared(found)
    keys, rows = reading.match({name: part.keys for name, part in found.items()})
    arrays: dict[str, np.ndarray] = {}
    masks, columns, counts = {}, {}, set()
    for name, part in found.items():
        if twice := set(arrays) & set(part.arrays):
            raise ValueError(f"Expected modalities of different names, got {sorted(twice)} again in reader {name!r}.")
        arrays |= {modality: x[rows[name]] for modality, x in part.arrays.items()}
        masks |= {modality: mask[rows[name]] & (rows[name] >= 0) for modality, mask in part.masks.items()}
        columns |= part.columns
        counts |= set(part.counts)
    joined = reading.Read(arrays, _labels(found, rows, keys), masks, keys, counts=tuple(counts), columns=columns)
    return reading.divided(config, split, joined)


def _read(name: str, reader: Any) -> reading.Read:
    module = importlib.import_module(type(reader).__module__)
    if not isinstance(reader, reading.Options) or not hasattr(module, "read"):
        raise ValueError(f"Expected the config of a reader of files for {name!r}, got {type(reader).__module__}.")
    usual = reading.Options()
    if own := [f.name for f in dataclasses.fields(usual) if getattr(reader, f.name) != getattr(usual, f.name)]:
        raise ValueError(f"Expected {', '.join(own)} beside the readers, for all of them, got it in reader {name!r}.")
    found = module.read(reader)
    if not all(isinstance(key, str) for key in found.keys):
        raise ValueError(
            f"Expected names of examples in reader {name!r}, got row numbers: tables have the field `key`, their column of names."
        )
    return found


def _check_shared(found: Mapping[str, reading.Read]) -> None:
    """Raises a ValueError where a reader has no example in common with any other, which is a mistake of names."""
    for name, part in found.items():
        others = {key for other, theirs in found.items() if other != name for key in theirs.keys}
        if others and not others & set(part.keys):
            raise ValueError(
                f"Expected names of examples that another reader has too, got {reading.some(sorted(part.keys))} in {name!r}, and "
                f"{reading.some(sorted(others))} elsewhere."
            )


def _labels(found: Mapping[str, reading.Read], rows: Mapping[str, np.ndarray], keys: list[str]) -> np.ndarray | None:
    labelled = [name for name, part in found.items() if part.labels is not None]
    if not labelled:
        return None
    if len(labelled) > 1:
        raise ValueError(f"Expected classes in one reader, got them in {labelled}.")
    mine = rows[labelled[0]]
    if (mine < 0).any():
        without = [keys[i] for i in np.flatnonzero(mine < 0)]
        raise ValueError(f"Expected a class for every example in reader {labelled[0]!r}, got none for {reading.some(without)}.")
    return np.asarray(found[labelled[0]].labels)[mine]
