"""Data sets prepared once, by tensorflow-datasets into array_record files, and read back without TensorFlow.

A preparation is found again by what it depends on: the data set's config and its raw files' checksums. tensorflow-datasets writes into a
folder of another name and renames it at the end, so that an interrupted preparation is never taken for a finished one; the next
process begins it anew and clears away what was left.
"""

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import os
import pathlib
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import tensorflow_datasets as tfds

from jnf_jax import configs
from jnf_jax import specs as specs_lib
from jnf_jax.data import files, source

_VERSION = "1.0.0"  # of how examples are made: raise it when that changes
_CHUNK = 1_000
_LABEL = "label"
_FORMAT = "array_record"


@dataclasses.dataclass(frozen=True)
class Examples:
    """One split, made in pieces.

    Attributes:
      labels: `[N]` classes.
      views: modality -> function from a slice of rows to an array `[.., *shape]`.
    """

    labels: np.ndarray
    views: Mapping[str, Callable[[slice], np.ndarray]]


def load(
    config: configs.Component,
    split: source.Split,
    *,
    specs: specs_lib.Specs,
    dtypes: Mapping[str, np.dtype],
    raw: Mapping[str, str],
    make: Callable[[source.Split], Examples],
    likelihood_fields: Sequence[str] = ("scale",),
) -> source.Source:
    """Returns a split of a data set, prepared first where it is not.

    Args:
      config: of the data set; its module's name is the data set's.
      split: which.
      specs: modality -> spec.
      dtypes: modality -> type of its values on disk.
      raw: name -> checksum of the raw files.
      make: split -> its examples; called only where they are not prepared yet.
      likelihood_fields: fields of the config that the examples do not depend on.

    Raises:
      ValueError: if the split is unknown.
    """
    source.check_split(split)
    name = type(config).__module__.rsplit(".", 1)[-1]
    settings = {key: value for key, value in configs.to_json(config).items() if key not in (*likelihood_fields, "type")}
    identity = {"settings": settings, "raw": dict(raw)}
    features = {key: tfds.features.Tensor(shape=spec.shape, dtype=dtypes[key], encoding="bytes") for key, spec in specs.items()}
    builder = _Builder(
        name=name,
        identity=identity,
        features=tfds.features.FeaturesDict(features | {_LABEL: tfds.features.Tensor(shape=(), dtype=np.int32)}),
        make=make,
    )
    if not builder.is_prepared():
        with _lease(builder.root):
            if not _Builder.is_prepared(builder):
                for left in builder.root.rglob("*incomplete*"):
                    shutil.rmtree(left, ignore_errors=True)
                builder.download_and_prepare(file_format=_FORMAT)
    arrays = _read(builder, split)
    return source.Source(specs=specs, arrays={key: arrays[key] for key in specs}, labels=arrays[_LABEL])


class _Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A data set whose examples a function makes."""

    VERSION = tfds.core.Version(_VERSION)

    def __init__(self, *, name: str, identity: dict, features: tfds.features.FeaturesDict, make: Callable[[str], Examples]):
        self.name = name
        self._identity = json.dumps(identity, sort_keys=True)
        self._feature_spec = features
        self._make = make
        self.root = files.cache_directory() / "datasets" / name
        digest = hashlib.sha256(self._identity.encode()).hexdigest()[:16]
        config = tfds.core.BuilderConfig(name=digest, version=_VERSION)
        self.BUILDER_CONFIGS = [config]
        self.root.mkdir(parents=True, exist_ok=True)
        super().__init__(data_dir=str(self.root.parent), config=config, version=_VERSION, file_format=_FORMAT)

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self, description=self._identity, features=self._feature_spec, disable_shuffling=True
        )

    def _split_generators(self, dl_manager):
        del dl_manager
        return {split: self._generate_examples(split) for split in source.SPLITS}

    def _generate_examples(self, split):
        examples = self._make(split)
        for start in range(0, len(examples.labels), _CHUNK):
            rows = slice(start, min(start + _CHUNK, len(examples.labels)))
            views = {name: np.ascontiguousarray(view(rows)) for name, view in examples.views.items()}
            for i, label in enumerate(examples.labels[rows]):
                yield start + i, {name: view[i] for name, view in views.items()} | {_LABEL: np.int32(label)}


def _read(builder: tfds.core.DatasetBuilder, split: str) -> dict[str, np.ndarray]:
    """Returns feature -> `[N, ..]`, read in pieces."""
    data = builder.as_data_source(split=split)
    arrays: dict[str, np.ndarray] = {}
    for start in range(0, len(data), _CHUNK):
        rows = range(start, min(start + _CHUNK, len(data)))
        for i, example in zip(rows, data.__getitems__(list(rows)), strict=True):
            for name, value in example.items():
                if name not in arrays:
                    arrays[name] = np.empty((len(data), *np.shape(value)), np.asarray(value).dtype)
                arrays[name][i] = value
    return arrays


@contextlib.contextmanager
def _lease(folder: pathlib.Path) -> Iterator[None]:
    """Waits until no other process prepares in this folder, and holds it."""
    with (folder / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def stock_version(name: str) -> str | None:
    """Returns the version of a data set of tensorflow-datasets' own that lies prepared as array_record; None where there is none."""
    builder = _stock(name)
    return None if builder is None else str(builder.version)


def stock(name: str, split: str) -> dict[str, np.ndarray] | None:
    """Returns a split of a data set of tensorflow-datasets' own, feature -> `[N, ..]`; None where it is not prepared as array_record."""
    builder = _stock(name)
    return None if builder is None else _read(builder, split)


def _stock(name: str) -> tfds.core.DatasetBuilder | None:
    try:
        builder = tfds.builder(name, data_dir=os.environ.get("TFDS_DATA_DIR"), try_gcs=False)
    except (tfds.core.DatasetNotFoundError, ImportError):
        return None
    if not builder.is_prepared() or builder.info.file_format is not tfds.core.FileFormat.ARRAY_RECORD:
        return None
    return builder
