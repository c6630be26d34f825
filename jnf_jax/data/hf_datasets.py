"""A data set of Hugging Face `datasets`, from a folder that `save_to_disk` wrote, or from the Hub: columns are the modalities.

A column holds images, arrays of one shape, numbers or words. None in a column means that the example lacks the modality. A column of images is
grey where all of them are, else it has three channels.
"""

import dataclasses
import functools
import io
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import PIL.Image

from jnf_jax.data import images, reading, source

EXTRA = "datasets"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(reading.Options):
    """Columns of a data set.

    Attributes:
      path: folder that `save_to_disk` wrote, or a name on the Hub (`ylecun/mnist`).
      subset: configuration of a data set on the Hub; None: its only one.
      revision: commit or tag of a data set on the Hub; None: the newest.
      columns: modality -> its column.
      label: column of the classes; None: there is none.
      test: published split that is kept for testing; the others become train and validation. None: all rows are divided at random.
    """

    path: str = ""
    subset: str | None = None
    revision: str | None = None
    columns: Mapping[str, str] = dataclasses.field(default_factory=dict)
    label: str | None = None
    test: str | None = None


def build(config: Config, split: source.Split) -> source.Source:
    """Returns one split.

    Raises:
      ValueError: if `datasets` is missing, there is no such data set, split or column, or the arrays of a column have several shapes.
    """
    source.check_split(split)
    return reading.divided(config, split, read(config))


def read(config: Config) -> reading.Read:
    """Returns what is in the data set; errors as of `build`."""
    parts = _parts(config)
    if config.test is not None and config.test not in parts:
        raise ValueError(f"Expected a published split of {list(parts)}, got {config.test!r}.")
    first = next(iter(parts.values()))
    if not config.columns:
        raise ValueError(f"Expected a column for each modality, got none; there are {first.column_names}.")
    wanted = [*config.columns.values(), *([config.label] if config.label else [])]
    for part in parts.values():
        if unknown := [column for column in wanted if column not in part.column_names]:
            raise ValueError(f"Expected columns of {part.column_names}, got {unknown}.")
    values = {column: [value for part in parts.values() for value in _column(part, column)] for column in wanted}
    masks = {name: np.asarray([v is not None for v in values[column]]) for name, column in config.columns.items()}
    arrays = {name: _stack(name, values[column]) for name, column in config.columns.items()}
    labels = None if config.label is None else _labels(config.label, values[config.label])
    of_split = np.concatenate([np.full(len(part), name) for name, part in parts.items()])
    test = None if config.test is None else np.flatnonzero(of_split == config.test)
    return reading.Read(arrays, labels, masks, range(len(of_split)), test=test)


def _parts(config: Config) -> dict[str, Any]:
    """Returns published split -> its rows; a data set without splits is one called `all`."""
    datasets = reading.optional("datasets", EXTRA)
    try:
        if pathlib.Path(config.path).is_dir():
            found = datasets.load_from_disk(config.path)
        else:
            found = datasets.load_dataset(config.path, config.subset, revision=config.revision)
    except (OSError, ValueError) as error:  # `datasets`' and the Hub's own are among them
        raise ValueError(
            f"Expected a folder that `save_to_disk` wrote, or a name on the Hub, got {config.path!r}: {error}"
        ) from error
    return dict(found) if isinstance(found, datasets.DatasetDict) else {"all": found}


def _column(part: Any, column: str) -> list:
    """Returns a column's values; images as they are opened, for once Pillow has loaded one it no longer knows how deep it was."""
    datasets = reading.optional("datasets", EXTRA)
    if not isinstance(part.features[column], datasets.Image):
        return list(part[column])
    found = part.cast_column(column, datasets.Image(decode=False))[column]
    return [None if value is None else _opened(column, value) for value in found]


def _opened(column: str, value: dict[str, Any]) -> PIL.Image.Image:
    try:
        content = pathlib.Path(value["path"]).read_bytes() if value["bytes"] is None else value["bytes"]
        return PIL.Image.open(io.BytesIO(content))  # of a path it would hold the file open
    except OSError as error:
        raise ValueError(f"Expected an image in every row of {column!r}, got something else: {error}") from error


def _stack(name: str, values: list) -> np.ndarray:
    """Returns `[N, *shape]`; a number or a word is a vector of one, and a missing example is the first one that is there."""
    there = [value for value in values if value is not None]
    if not there:
        raise ValueError(f"Expected modality {name!r} in some example, got it in none.")
    as_array = functools.partial(_image, name, _mode(there)) if isinstance(there[0], PIL.Image.Image) else np.asarray
    rows = [as_array(there[0] if value is None else value) for value in values]
    for i, row in enumerate(rows):
        if row.shape != rows[0].shape or row.dtype.kind not in "biufU":
            raise ValueError(
                f"Expected arrays of shape {rows[0].shape} in modality {name!r}, got {row.dtype} {row.shape} in example {i}."
            )
    x = np.stack(rows)
    return x[..., None] if x.ndim == 1 else x


def _mode(there: list[PIL.Image.Image]) -> str:
    """Returns `1`, of zeros and ones, where all images are so, else `L` where all are grey, else `RGB`."""
    if all(image.mode == "1" for image in there):
        return "1"
    return "L" if all(map(images.is_grey, there)) else "RGB"


def _image(name: str, mode: str, value: PIL.Image.Image) -> np.ndarray:
    try:
        return images.as_array(value, "L") // np.uint8(255) if mode == "1" else images.as_array(value, mode)
    except ValueError as error:
        raise ValueError(f"{str(error).rstrip('.')} in modality {name!r}.") from error


def _labels(column: str, values: list) -> np.ndarray:
    if None in values:
        raise ValueError(f"Expected a class in every row of {column!r}, got none in row {values.index(None)}.")
    return np.asarray(values)
