"""A table, .parquet, .csv or .tsv, read by pandas: groups of its columns are the modalities.

A modality of numbers, or of booleans, is a vector of its columns. One of words, or of what pandas knows as categories, is one column: a category
among the sorted words. An empty cell means that the example lacks the modality; among numbers so does a word such as NA or NaN.
"""

import dataclasses
import datetime
import numbers
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jnf_jax.data import reading, source

EXTRA = "tables"
_READERS = {".parquet": ("read_parquet", {}), ".csv": ("read_csv", {}), ".tsv": ("read_csv", {"sep": "\t"})}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(reading.Options):
    """Groups of columns of a table.

    Attributes:
      path: of the file.
      columns: modality -> its columns.
      label: column of the classes; None: there is none.
      key: column of the rows' names, by which `joined` matches them; None: they have none.
    """

    path: str = ""
    columns: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    label: str | None = None
    key: str | None = None


def build(config: Config, split: source.Split) -> source.Source:
    """Returns one split.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if pandas is missing, the file is no table, or a column is unknown or holds what the modality cannot.
    """
    source.check_split(split)
    return reading.divided(config, split, read(config))


def read(config: Config) -> reading.Read:
    """Returns what is in the table; errors as of `build`."""
    table = _table(config.path, key=config.key)
    if not config.columns:
        raise ValueError(f"Expected columns for each modality, got none; the table has {reading.some(list(table))}.")
    for name, columns in config.columns.items():
        if isinstance(columns, str):
            raise ValueError(f"Expected a tuple of columns for modality {name!r}, got the text {columns!r}.")
    wanted = [c for columns in config.columns.values() for c in columns]
    wanted += [column for column in (config.label, config.key) if column is not None]
    if unknown := [column for column in wanted if column not in table]:
        raise ValueError(f"Expected columns of {[str(c) for c in table]}, got {unknown}.")
    masks = {name: table[list(columns)].notna().all(axis=1).to_numpy() for name, columns in config.columns.items()}
    arrays = {name: _array(name, table[list(columns)]) for name, columns in config.columns.items()}
    labels = None
    if config.label is not None:
        labels = table[config.label]
        if labels.isna().any():
            raise ValueError(
                f"Expected a class in every row of {config.label!r}, got none in {int(labels.isna().sum())} rows, the first is row "
                f"{int(labels.isna().argmax())}: without `label` all rows are used, or make it a modality."
            )
        labels = labels.to_numpy()
    return reading.Read(arrays, labels, masks, _keys(table, config.key), columns=config.columns)


def _keys(table, column: str | None) -> Sequence[Any]:
    if column is None:
        return range(len(table))
    if table[column].isna().any():
        raise ValueError(f"Expected a name in every row of {column!r}, got none in row {int(table[column].isna().argmax())}.")
    return table[column].astype(str).tolist()


def _table(path: str, *, key: str | None):
    """Returns the table; names of rows stay as they are written, 001 for instance."""
    pandas = reading.optional("pandas", EXTRA)
    ending = pathlib.Path(path).suffix.lower()
    if ending not in _READERS:
        raise ValueError(f"Expected a table {', '.join(_READERS)}, got {path!r}.")
    if not pathlib.Path(path).is_file():
        raise FileNotFoundError(f"Expected a table, got no file at {path!r}.")
    name, options = _READERS[ending]
    options = options | ({"dtype": {key: str}} if key is not None and name == "read_csv" else {})
    try:
        table = getattr(pandas, name)(path, **options)
        # with a field more than the header has names, pandas takes the first column for names of rows
        if name == "read_csv" and not isinstance(table.index, pandas.RangeIndex):
            raise ValueError("rows have more fields than the header has names")
        if name == "read_csv" and (words := [column for column in table if _is_of_words(table[column])]):
            # pandas takes words such as None and NA for empty cells
            again = pandas.read_csv(path, **(options | {"dtype": str}), usecols=words, keep_default_na=False, na_values=[""])
            table = table.assign(**{column: again[column] for column in words})
        return table
    except (ImportError, ValueError, OSError) as error:  # pandas' and pyarrow's own are among them
        raise ValueError(f"Expected a table at {path!r}, got what pandas cannot read: {error}") from error


def _is_of_words(column) -> bool:
    values = column.dropna()
    return column.dtype.kind not in "biuf" and len(values) > 0 and all(isinstance(value, str) for value in values)


def _has_dates(column) -> bool:
    if column.dtype.kind != "O":
        return column.dtype.kind in "mM"
    return any(isinstance(value, (datetime.date, datetime.time, datetime.timedelta)) for value in column)


def _as_numbers(column):
    """Returns a column of objects as numbers where it holds nothing else: booleans beside empty cells, or decimals."""
    if column.dtype != object:  # of the kind O are pandas' categories too
        return column
    values = column.dropna()
    if not len(values) or not all(isinstance(value, (bool, numbers.Number)) for value in values):
        return column
    return column.where(column.notna(), np.nan).astype(float)


def _array(name: str, columns) -> np.ndarray:
    """Returns `[N, columns]` numbers, or one column of words `[N, 1]`."""
    if dates := [str(c) for c in columns if _has_dates(columns[c])]:
        raise ValueError(
            f"Expected numbers or words in the columns of modality {name!r}, got dates in {dates}: make them numbers first."
        )
    columns = columns.assign(**{column: _as_numbers(columns[column]) for column in columns})
    words = [str(c) for c, dtype in columns.dtypes.items() if dtype.kind not in "biuf"]
    if not words:
        if columns.isna().any(axis=None):
            return columns.to_numpy(np.float64, na_value=np.nan)
        return columns.to_numpy(np.result_type(*(getattr(dtype, "numpy_dtype", dtype) for dtype in columns.dtypes)))
    if len(columns.columns) > 1:
        raise ValueError(f"Expected numbers in the columns of modality {name!r}, or one column of words, got words in {words}.")
    return columns.astype(object).where(columns.notna(), "").to_numpy().astype(str)
