"""Inception-v3's pool features, those of the Frechet Inception Distance (Szegedy et al., 2016; Heusel et al., 2017).

The architecture is the one whose published FID weights were converted from TensorFlow: average pools leave the border's padding out, the last
block pools by maximum, and there are 1,008 classes, whose layer is not needed here. The weights are not part of this project: a user lays down
the file, `python -m experiments.convert_inception` makes plain arrays of it once. The FID then is `frechet.distance` of these features.
"""

import functools
import hashlib
import pathlib
import zipfile
from typing import NamedTuple

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from jnf_jax import types

NUM_FEATURES = 2_048
_SIZE = 299
_EPSILON = 1e-3


class _Conv(nn.Module):
    """A convolution without bias, batch normalisation by fixed moments, relu."""

    features: int
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1
    padding: tuple[int, int] = (0, 0)

    @nn.compact
    def __call__(self, x: types.Array) -> types.Array:
        padding = [(p, p) for p in self.padding]
        x = nn.Conv(self.features, self.kernel, self.stride, padding, use_bias=False, name="conv")(x)
        return nn.relu(nn.BatchNorm(use_running_average=True, epsilon=_EPSILON, name="bn")(x))


def _same(features: int, height: int, width: int, name: str) -> _Conv:
    return _Conv(features, (height, width), padding=(height // 2, width // 2), name=name)


def _halving(features: int, name: str) -> _Conv:
    return _Conv(features, (3, 3), stride=2, name=name)


def _smaller(x: types.Array) -> types.Array:
    return nn.max_pool(x, (3, 3), (2, 2))


def _average(x: types.Array) -> types.Array:
    return nn.avg_pool(x, (3, 3), padding=((1, 1), (1, 1)), count_include_pad=False)


class _A(nn.Module):
    pool_features: int

    @nn.compact
    def __call__(self, x):
        five = _same(64, 5, 5, "branch5x5_2")(_Conv(48, name="branch5x5_1")(x))
        double = _same(96, 3, 3, "branch3x3dbl_2")(_Conv(64, name="branch3x3dbl_1")(x))
        double = _same(96, 3, 3, "branch3x3dbl_3")(double)
        pool = _Conv(self.pool_features, name="branch_pool")(_average(x))
        return jnp.concatenate([_Conv(64, name="branch1x1")(x), five, double, pool], axis=-1)


class _B(nn.Module):
    @nn.compact
    def __call__(self, x):
        double = _same(96, 3, 3, "branch3x3dbl_2")(_Conv(64, name="branch3x3dbl_1")(x))
        double = _halving(96, "branch3x3dbl_3")(double)
        return jnp.concatenate([_halving(384, "branch3x3")(x), double, _smaller(x)], axis=-1)


class _C(nn.Module):
    width: int

    @nn.compact
    def __call__(self, x):
        seven = _same(self.width, 1, 7, "branch7x7_2")(_Conv(self.width, name="branch7x7_1")(x))
        seven = _same(192, 7, 1, "branch7x7_3")(seven)
        double = _same(self.width, 7, 1, "branch7x7dbl_2")(_Conv(self.width, name="branch7x7dbl_1")(x))
        double = _same(self.width, 1, 7, "branch7x7dbl_3")(double)
        double = _same(self.width, 7, 1, "branch7x7dbl_4")(double)
        double = _same(192, 1, 7, "branch7x7dbl_5")(double)
        pool = _Conv(192, name="branch_pool")(_average(x))
        return jnp.concatenate([_Conv(192, name="branch1x1")(x), seven, double, pool], axis=-1)


class _D(nn.Module):
    @nn.compact
    def __call__(self, x):
        three = _halving(320, "branch3x3_2")(_Conv(192, name="branch3x3_1")(x))
        seven = _same(192, 1, 7, "branch7x7x3_2")(_Conv(192, name="branch7x7x3_1")(x))
        seven = _halving(192, "branch7x7x3_4")(_same(192, 7, 1, "branch7x7x3_3")(seven))
        return jnp.concatenate([three, seven, _smaller(x)], axis=-1)


class _E(nn.Module):
    maximum: bool

    @nn.compact
    def __call__(self, x):
        split = lambda x, name: [_same(384, 1, 3, f"{name}a")(x), _same(384, 3, 1, f"{name}b")(x)]
        three = split(_Conv(384, name="branch3x3_1")(x), "branch3x3_2")
        double = _same(384, 3, 3, "branch3x3dbl_2")(_Conv(448, name="branch3x3dbl_1")(x))
        double = split(double, "branch3x3dbl_3")
        pooled = nn.max_pool(x, (3, 3), padding=((1, 1), (1, 1))) if self.maximum else _average(x)
        pool = _Conv(192, name="branch_pool")(pooled)
        return jnp.concatenate([_Conv(320, name="branch1x1")(x), *three, *double, pool], axis=-1)


class Inception(nn.Module):
    """Images `[B, 299, 299, 3]` in [-1, 1] to features `[B, 2048]`. Parts are named as in the published file."""

    @nn.compact
    def __call__(self, x: types.Array) -> types.Array:
        x = _halving(32, "Conv2d_1a_3x3")(x)
        x = _Conv(32, (3, 3), name="Conv2d_2a_3x3")(x)
        x = _smaller(_same(64, 3, 3, "Conv2d_2b_3x3")(x))
        x = _Conv(80, name="Conv2d_3b_1x1")(x)
        x = _smaller(_Conv(192, (3, 3), name="Conv2d_4a_3x3")(x))
        for letter, width in zip("bcd", (32, 64, 64), strict=True):
            x = _A(width, name=f"Mixed_5{letter}")(x)
        x = _B(name="Mixed_6a")(x)
        for letter, width in zip("bcde", (128, 160, 160, 192), strict=True):
            x = _C(width, name=f"Mixed_6{letter}")(x)
        x = _D(name="Mixed_7a")(x)
        x = _E(maximum=False, name="Mixed_7b")(x)
        return _E(maximum=True, name="Mixed_7c")(x).mean((1, 2))


class Weights(NamedTuple):
    """Weights from a file, and which file that was."""

    variables: types.Params
    sha256: str


# the published file's name of an array -> (collection, name, axes in our order)
_KINDS = {
    "conv.weight": ("params", ("conv", "kernel"), (2, 3, 1, 0)),
    "bn.weight": ("params", ("bn", "scale"), (0,)),
    "bn.bias": ("params", ("bn", "bias"), (0,)),
    "bn.running_mean": ("batch_stats", ("bn", "mean"), (0,)),
    "bn.running_var": ("batch_stats", ("bn", "var"), (0,)),
}


def load(path: pathlib.Path) -> Weights:
    """Reads weights, an `.npz` of arrays under their published names (`Mixed_5b.branch1x1.conv.weight`, ..).

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if it is no such file, or its arrays are not this network's.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"Expected Inception-v3's converted FID weights at {path}, got no file: `python -m experiments.convert_inception` makes it."
        )
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (ValueError, zipfile.BadZipFile) as error:
        raise ValueError(f"Expected an .npz of plain arrays, got {path}: {error}") from error
    flat: dict[tuple[str, ...], np.ndarray] = {}
    for name, array in arrays.items():
        part, _, kind = name.rpartition(".")
        part, _, layer = part.rpartition(".")
        if (found := _KINDS.get(f"{layer}.{kind}")) is not None:
            collection, leaf, axes = found
            if array.ndim != len(axes):
                raise ValueError(f"Expected {name!r} in {path} with {len(axes)} axes, got shape {array.shape}.")
            flat[(collection, *part.split("."), *leaf)] = array.transpose(axes)
    expected = flax.traverse_util.flatten_dict(_shapes())
    if missing := sorted(".".join(key) for key in expected.keys() - flat.keys()):
        raise ValueError(
            f"Expected the weights of Inception-v3 in {path}, got none for {missing[:3]} ({len(missing)} missing)."
        )
    for key, leaf in expected.items():
        if flat[key].shape != leaf.shape:
            raise ValueError(f"Expected {'.'.join(key)} of shape {leaf.shape} in {path}, got {flat[key].shape}.")
    variables = flax.traverse_util.unflatten_dict({key: jnp.asarray(flat[key], jnp.float32) for key in expected})
    return Weights(variables, hashlib.sha256(path.read_bytes()).hexdigest())


def features(weights: Weights, images: np.ndarray, *, batch_size: int = 50) -> np.ndarray:
    """Returns the pool features `[N, 2048]` of images, in batches of one shape.

    Args:
      weights: the network's.
      images: `[N, H, W, C]` in [0, 1], one channel or three; one is repeated.
      batch_size: images at once.

    Raises:
      ValueError: if these are no such images.
    """
    images = np.asarray(images)
    if images.ndim != 4 or images.shape[-1] not in (1, 3):
        raise ValueError(f"Expected images of shape (N, H, W, 1 or 3), got {images.shape}.")
    parts = []
    for start in range(0, len(images), batch_size):
        rows = images[np.arange(start, start + batch_size).clip(max=len(images) - 1)]
        parts.append(np.asarray(_apply(weights.variables, rows))[: len(images) - start])
    return np.concatenate(parts)


@jax.jit
def _apply(variables: types.Params, images: types.Array) -> types.Array:
    images = jnp.broadcast_to(images, (*images.shape[:-1], 3)).astype(jnp.float32)
    resized = jax.image.resize(images, (len(images), _SIZE, _SIZE, 3), "bilinear", antialias=False)
    return Inception().apply(variables, 2 * resized - 1)


@functools.cache
def _shapes():
    return jax.eval_shape(Inception().init, jax.random.key(0), jnp.zeros((1, _SIZE, _SIZE, 3)))
