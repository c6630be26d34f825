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
import math
import os
import pathlib
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import tensorflow_datasets as tfds

from jnf_jax import cache, configs
from jnf_jax import specs as specs_lib
from jnf_jax.data import source

_NOT_OF_EXAMPLES = ("likelihood", "scale", "type")
_VERSION = "1.0.0"  # of how examples are made: raise it when that changes
_CHUNK = 1_000  # examples made or read at once
_PIECE = 500 << 20  # bytes
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
) -> source.Source:
    """Returns a split of a data set, prepared first where it is not.

    Args:
      config: of the data set; its module's name is the data set's. Examples depend on all of its fields but those of the likelihood,
        `likelihood` and `scale`.
      split: which.
      specs: modality -> spec.
      dtypes: modality -> type of its values on disk.
      raw: name -> checksum of the raw files.
      make: split -> its examples; called only where they are not prepared yet.

    Raises:
      ValueError: if the split is unknown.
    """
    source.check_split(split)
    name = type(config).__module__.rsplit(".", 1)[-1]
    settings = {key: value for key, value in configs.to_json(config).items() if key not in _NOT_OF_EXAMPLES}
    identity = {"settings": settings, "raw": dict(raw)}
    features = {key: tfds.features.Tensor(shape=spec.shape, dtype=dtypes[key], encoding="bytes") for key, spec in specs.items()}
    features = tfds.features.FeaturesDict(features | {_LABEL: tfds.features.Tensor(shape=(), dtype=np.int32)})
    make_builder = lambda: _builder_class()(name=name, identity=identity, features=features, make=make)
    builder = make_builder()
    if not builder.is_prepared():
        with _lease(builder.root):
            builder = make_builder()  # another process may have prepared it meanwhile: only a new builder reads what it wrote
            if not builder.is_prepared():
                for left in builder.root.rglob("*incomplete*"):
                    shutil.rmtree(left, ignore_errors=True)
                builder.download_and_prepare(file_format=_FORMAT)
    pieces = [f"{split}_{number}" for number in range(len(builder.info.splits)) if f"{split}_{number}" in builder.info.splits]
    arrays = _read(builder, pieces)
    return source.Source(specs=specs, arrays={key: arrays[key] for key in specs}, labels=arrays[_LABEL])


class _Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A data set whose examples a function makes."""

    VERSION = tfds.core.Version(_VERSION)

    def __init__(self, *, name: str, identity: dict, features: tfds.features.FeaturesDict, make: Callable[[str], Examples]):
        self.name = name
        self._identity = json.dumps(identity, sort_keys=True)
        self._feature_spec = features
        self._make = make
        self.root = cache.directory() / "datasets" / name
        digest = hashlib.sha256(self._identity.encode()).hexdigest()[:16]
        config = tfds.core.BuilderConfig(name=digest, version=_VERSION)
        type(self).BUILDER_CONFIGS = [config]  # one that the class does not know is warned about
        self.root.mkdir(parents=True, exist_ok=True)
        super().__init__(data_dir=str(self.root.parent), config=config, version=_VERSION, file_format=_FORMAT)

    def _info(self) -> tfds.core.DatasetInfo:
        return _Info(builder=self, description=self._identity, features=self._feature_spec, disable_shuffling=True)

    def _split_generators(self, dl_manager):
        """Splits go in pieces: beyond a gigabyte tensorflow-datasets would sort a split on disk, for which it needs TensorFlow."""
        del dl_manager
        size = sum(np.dtype(feature.np_dtype).itemsize * math.prod(feature.shape) for feature in self._feature_spec.values())
        most = max(1, _PIECE // size)
        generators = {}
        for split in source.SPLITS:
            examples = self._make(split)
            for number, start in enumerate(range(0, len(examples.labels), most)):
                rows = range(start, min(start + most, len(examples.labels)))
                generators[f"{split}_{number}"] = self._generate_examples(examples, rows)
        return generators

    def _generate_examples(self, examples, rows):
        for start in range(rows.start, rows.stop, _CHUNK):
            part = slice(start, min(start + _CHUNK, rows.stop))
            views = {name: np.ascontiguousarray(view(part)) for name, view in examples.views.items()}
            for i, label in enumerate(examples.labels[part]):
                yield start + i, {name: view[i] for name, view in views.items()} | {_LABEL: np.int32(label)}


class _Info(tfds.core.DatasetInfo):
    """What is known of a data set of our own, which no bucket holds."""

    def initialize_from_bucket(self):
        """Does nothing; tensorflow-datasets would make a temporary folder for what it finds there, and leave it."""


def _builder_class() -> type[_Builder]:
    class Builder(_Builder, skip_registration=True):
        """A class of its own for each data set, which has its config."""

    return Builder


def _read(builder: tfds.core.DatasetBuilder, splits: Sequence[str]) -> dict[str, np.ndarray]:
    """Returns feature -> `[N, ..]`, of some splits one after another."""
    data = [builder.as_data_source(split=split) for split in splits]
    num = sum(map(len, data))
    arrays: dict[str, np.ndarray] = {}
    row = 0
    for part in data:
        for start in range(0, len(part), _CHUNK):
            for example in part.__getitems__(list(range(start, min(start + _CHUNK, len(part))))):
                for name, value in example.items():
                    if name not in arrays:
                        arrays[name] = np.empty((num, *np.shape(value)), np.asarray(value).dtype)
                    arrays[name][row] = value
                row += 1
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
    return None if builder is None else _read(builder, [split])


def _stock(name: str) -> tfds.core.DatasetBuilder | None:
    try:
        builder = tfds.builder(name, data_dir=os.environ.get("TFDS_DATA_DIR"), try_gcs=False)
    except (tfds.core.DatasetNotFoundError, ImportError):
        return None
    if not builder.is_prepared() or builder.info.file_format is not tfds.core.FileFormat.ARRAY_RECORD:
        return None
    return builder
