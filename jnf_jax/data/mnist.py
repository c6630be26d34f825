"""MNIST as its authors publish it, or as tensorflow-datasets has prepared it: what several data sets are made from."""

import gzip
import pathlib
import zlib

import numpy as np

from jnf_jax.data import files, prepared, source

_URL = "https://storage.googleapis.com/cvdf-datasets/mnist/"
_FILES = {  # (part, what) -> (file, sha256)
    ("train", "images"): ("train-images-idx3-ubyte.gz", "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"),
    ("train", "labels"): ("train-labels-idx1-ubyte.gz", "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"),
    ("test", "images"): ("t10k-images-idx3-ubyte.gz", "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"),
    ("test", "labels"): ("t10k-labels-idx1-ubyte.gz", "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"),
}
_RAW = {key: files.RawFile(name=f"mnist/{name}", url=_URL + name, sha256=digest) for key, (name, digest) in _FILES.items()}
_DTYPES = {8: np.uint8, 9: np.int8, 11: np.dtype(">i2"), 12: np.dtype(">i4"), 13: np.dtype(">f4"), 14: np.dtype(">f8")}


def read(split: source.Split) -> tuple[np.ndarray, np.ndarray]:
    """Returns images `[N, 28, 28]` uint8 and classes `[N]` int64 of the official train part (for train and validation) or test part.

    Raises:
      FileNotFoundError: if the files are neither there nor to be had.
      ValueError: if a file is no idx file, or images and labels are not as many.
    """
    part = "test" if split == "test" else "train"
    raw = {what: _RAW[part, what] for what in ("images", "labels")}
    if not _at_hand() and (found := prepared.stock("mnist", part)) is not None:
        return found["image"][..., 0], found["label"].astype(np.int64)
    images, labels = (read_idx(files.find(file)) for file in raw.values())
    if images.shape[1:] != (28, 28) or labels.shape != images.shape[:1]:
        raise ValueError(f"Expected as many labels as images of 28x28, got {labels.shape} and {images.shape}.")
    return images, labels.astype(np.int64)


def identity() -> dict[str, str]:
    """Returns what the images depend on: the raw files' checksums, or the version that tensorflow-datasets prepared."""
    if not _at_hand() and (version := prepared.stock_version("mnist")):
        return {"mnist": version}
    return files.sha256(files.find(file) for file in _RAW.values())


def _at_hand() -> bool:
    """Returns whether every raw file is there: train and test parts come from one place."""
    return all(map(files.is_at_hand, _RAW.values()))


def read_idx(path: pathlib.Path) -> np.ndarray:
    """Returns the array of a gzipped idx file.

    Raises:
      ValueError: if it is none, or cut short.
    """
    try:
        with gzip.open(path) as file:
            content = file.read()
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"Expected a gzipped idx file at {path}: {error}") from error
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] not in _DTYPES:
        raise ValueError(f"Expected an idx file at {path}, got one that begins with {content[:4]!r}.")
    num_axes = content[3]
    if len(content) < 4 + 4 * num_axes:
        raise ValueError(f"Expected the lengths of {num_axes} axes in {path}, got a file of {len(content)} bytes.")
    shape = tuple(int(n) for n in np.frombuffer(content, ">u4", num_axes, offset=4))
    dtype = np.dtype(_DTYPES[content[2]])
    values = np.frombuffer(content, dtype, offset=4 + 4 * num_axes)
    if len(values) != np.prod(shape):
        raise ValueError(f"Expected {np.prod(shape)} values in {path}, got {len(values)}.")
    return values.reshape(shape)
