"""Codes as arrays on the host, whether z is one array `[.., D]` or a pytree of shared and private ones."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from jnf_jax import types
from jnf_jax.models import base


def is_one(model: base.Model, params: types.Params) -> bool:
    """Returns whether a model's z is one array."""
    draw = functools.partial(model.sample_prior, num_samples=1)
    return hasattr(jax.eval_shape(draw, params, jax.random.key(0)), "shape")


def length(z: Any) -> int:
    """Returns the length of the leading axis."""
    return len(jax.tree.leaves(z)[0])


def take(z: Any, index: Any) -> Any:
    """Returns `leaf[index]` of every leaf."""
    return jax.tree.map(lambda leaf: leaf[index], z)


def concatenated(parts: Sequence[Any], *, axis: int = 0) -> Any:
    """Returns the parts behind each other along an axis, in numpy."""
    return jax.tree.map(lambda *leaves: np.concatenate(leaves, axis=axis), *parts)


def as_array(z: Any) -> np.ndarray:
    """Returns all codes of each draw beside each other, `[.., D]`."""
    return np.concatenate([np.asarray(leaf) for leaf in jax.tree.leaves(z)], axis=-1)


def from_array(array: np.ndarray, like: Any) -> Any:
    """Returns what `as_array` made of a pytree with the leaves of `like`, `[.., D_i]` each."""
    leaves, structure = jax.tree.flatten(like)
    ends = np.cumsum([leaf.shape[-1] for leaf in leaves])[:-1]
    return jax.tree.unflatten(structure, np.split(np.asarray(array), ends, axis=-1))
