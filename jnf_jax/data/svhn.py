"""SVHN's cropped digits as their authors publish them, or as tensorflow-datasets has prepared them."""

import pathlib
import zlib

import numpy as np
import scipy.io

from jnf_jax.data import files, prepared, source

_URL = "http://ufldl.stanford.edu/housenumbers/"
_FILES = {
    "train": ("train_32x32.mat", "435e94d69a87fde4fd4d7f3dd208dfc32cb6ae8af2240d066de1df7508d083b8"),
    "test": ("test_32x32.mat", "cdce80dfb2a2c4c6160906d0bd7c68ec5a99d7ca4831afa54f09182025b6a75b"),
}
_RAW = {part: files.RawFile(name=f"svhn/{name}", url=_URL + name, sha256=digest) for part, (name, digest) in _FILES.items()}


def read(split: source.Split) -> tuple[np.ndarray, np.ndarray]:
    """Returns images `[N, 32, 32, 3]` uint8 and classes 0..9 `[N]` int64 of the official train part (train and validation) or test part.

    Raises:
      FileNotFoundError: if the file is neither there nor to be had.
      ValueError: if it is no such .mat file.
    """
    part = "test" if split == "test" else "train"
    if not _at_hand() and (found := prepared.stock("svhn_cropped", part)) is not None:
        return found["image"], found["label"].astype(np.int64)
    return read_mat(files.find(_RAW[part]))


def identity() -> dict[str, str]:
    """Returns what the images depend on: the raw files' checksums, or the version that tensorflow-datasets prepared."""
    if not _at_hand() and (version := prepared.stock_version("svhn_cropped")):
        return {"svhn_cropped": version}
    return files.sha256(files.find(file) for file in _RAW.values())


def _at_hand() -> bool:
    """Returns whether every raw file is there: train and test parts come from one place."""
    return all(map(files.is_at_hand, _RAW.values()))


def read_mat(path: pathlib.Path) -> tuple[np.ndarray, np.ndarray]:
    """Returns images and classes of a .mat file of X `[32, 32, 3, N]` and y `[N, 1]`, where the class 10 is the digit 0."""
    try:
        content = scipy.io.loadmat(path)
        images, labels = content["X"], content["y"]
    except (KeyError, TypeError, ValueError, NotImplementedError, zlib.error, scipy.io.matlab.MatReadError) as error:
        raise ValueError(f"Expected a .mat file of X and y at {path}: {error}") from error
    if images.ndim != 4 or images.shape[:3] != (32, 32, 3) or images.dtype != np.uint8 or labels.size != images.shape[3]:
        raise ValueError(
            f"Expected X (32, 32, 3, N) of 8 bits and as many y in {path}, got {images.dtype} {images.shape} and {labels.shape}."
        )
    return np.ascontiguousarray(images.transpose(3, 0, 1, 2)), labels.reshape(-1).astype(np.int64) % 10
