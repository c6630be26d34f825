"""Small raw files in the formats that data sets are published in, for the loaders' tests."""

import contextlib
import gzip
import io
import struct
import zipfile

import numpy as np
import PIL.Image
import pytest
import scipy.io

from jnf_jax.data import extended_polymnist, translated_polymnist

NUM_TRAIN, NUM_TEST = 60, 30


@contextlib.contextmanager
def installed(tmp_path_factory):
    """Yields a folder of small raw files that JNF_DATA_DIR names, beside a cache that starts empty."""
    root = tmp_path_factory.mktemp("raw")
    write(root)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JNF_DATA_DIR", str(root))
        patch.setenv("JNF_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield root


def write(root, num_train=NUM_TRAIN, num_test=NUM_TEST):
    """Fills a folder with every raw file; contents are random, classes are balanced."""
    rng = np.random.default_rng(0)
    labels = {"train": np.arange(num_train) % 10, "t10k": np.arange(num_test) % 10}
    for part, classes in labels.items():
        write_idx(root / f"mnist/{part}-images-idx3-ubyte.gz", digits(rng, classes))
        write_idx(root / f"mnist/{part}-labels-idx1-ubyte.gz", classes.astype(np.uint8))
    for name in extended_polymnist.PICTURES.values():
        picture(rng, root / "polymnist_backgrounds" / name)
    for name in translated_polymnist.MODALITIES:
        picture(rng, root / "polymnist_pictures" / f"{name}.png")
    for i in range(10):
        picture(rng, root / "photos" / f"{i}.jpg")
    for part, num in (("train", num_train), ("test", num_test)):
        write_mat(root / f"svhn/{part}_32x32.mat", rng, num)
        write_mhd(root / f"mhd/mhd_{part}.npz", rng, num)
    write_polymnist(root / "polymnist/PolyMNIST.zip", rng, (num_train, num_test))
    write_fsdd(root / "fsdd/fsdd_8k_int16.npz", rng)
    for name in ("pendigits.tra", "pendigits.tes"):
        write_strokes(root / "pendigits" / name, rng)


def digits(rng, classes):
    """Noise that is bright in a row of its own for each class."""
    images = rng.integers(0, 100, (len(classes), 28, 28), dtype=np.uint8)
    images[np.arange(len(classes)), classes + 8] = 255
    return images


def write_idx(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    header = b"\0\0\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    path.write_bytes(gzip.compress(header + array.tobytes()))


def picture(rng, path, size=(40, 50)):
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(path)


def write_mat(path, rng, num):
    path.parent.mkdir(parents=True, exist_ok=True)
    images = rng.integers(0, 256, (32, 32, 3, num), dtype=np.uint8)
    scipy.io.savemat(path, {"X": images, "y": (np.arange(num) % 10 + 1).astype(np.uint8)[:, None]})


def write_polymnist(path, rng, num):
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for part, count in zip(("train", "test"), num, strict=True):
            for i in range(count):
                for j in range(5):
                    out = io.BytesIO()
                    PIL.Image.fromarray(rng.integers(0, 256, (28, 28, 3), dtype=np.uint8)).save(out, "png")
                    archive.writestr(f"MMNIST/{part}/m{j}/{i // 10}.{i % 10}.png", out.getvalue())


def write_fsdd(path, rng):
    path.parent.mkdir(parents=True, exist_ok=True)
    index, label = (a.reshape(-1) for a in np.meshgrid(np.arange(14), np.arange(10)))
    lengths = rng.integers(1_500, 8_000, len(label))
    audio = rng.integers(-2_000, 2_000, lengths.sum(), dtype=np.int16)
    np.savez(path, audio=audio, offsets=np.concatenate([[0], np.cumsum(lengths)]), label=label.astype(np.uint8), index=index)


def write_strokes(path, rng, num=60):
    path.parent.mkdir(parents=True, exist_ok=True)
    table = np.concatenate([rng.integers(0, 101, (num, 16)), (np.arange(num) % 10)[:, None]], axis=1)
    path.write_text("\n".join(", ".join(map(str, row)) for row in table) + "\n")


def write_mhd(path, rng, num):
    path.parent.mkdir(parents=True, exist_ok=True)
    shapes = {"image": (1, 28, 28), "audio": (4, 32, 32), "trajectory": (200,)}
    arrays = {name: rng.random((num, *shape), dtype=np.float32) for name, shape in shapes.items()}
    np.savez(path, label=np.arange(num) % 10, **arrays)
