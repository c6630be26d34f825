"""A model for any number of observations: computed in chunks that fit the memory, each split over a mesh of devices.

A chunk has one shape, so that a function is compiled once; the last chunk is filled up with observations again, and what is computed for these
is dropped. The functions of a model treat every observation on its own, so that the results are exact.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jnf_jax import keys, types
from jnf_jax.models import base
from jnf_jax.training import sharding

_MEBIBYTES = 1024.0  # of a chunk
_COPIES = 64  # of an observation and its draws that networks and chains hold at once, a rule of thumb
_MOST = 4096  # observations in a chunk


def over(model: base.Model, mesh: Mesh | None = None, *, mebibytes: float = _MEBIBYTES, chunk: int | None = None) -> base.Model:
    """Returns the model with `sample_posterior`, `posterior_log_density`, `log_likelihood`, `elbo` and `log_normaliser` for any number of observations.

    Arrays of several chunks come back in the host's memory. Observations may stay in files (`data.stream.Rows`). Inside `jit` the functions are those
    of the model.

    Args:
      model: the model.
      mesh: devices; all of them where None.
      mebibytes: memory of a chunk, all devices together, from which the number of its observations is estimated.
      chunk: observations at once, in place of that estimate; rounded up to a multiple of the devices.

    Raises:
      ValueError: if a number is not positive.
    """
    if not mebibytes > 0 or (chunk is not None and chunk < 1):
        raise ValueError(f"Expected a positive memory and at least one observation a chunk, got {mebibytes} and {chunk}.")
    mesh = mesh or sharding.make_mesh()

    def size_of(observed: types.Batch, num_draws: int) -> int:
        if chunk is not None:
            return chunk
        numbers = sum(math.prod(x.shape[1:]) for x in observed.values()) + num_draws * model.latent_dim
        return min(_MOST, max(1, int(mebibytes * 2**20 / (4 * _COPIES * numbers))))

    def random(function: Callable, draws: str | None, axes: Any) -> Callable:
        """Returns (params, key, observed, *, options) -> what the function returns, in chunks."""

        @functools.wraps(function)
        def call(params, key, observed, **options):
            if not _can_be_cut(params, observed):
                return function(params, key, observed, **options)
            size = size_of(observed, options.get(draws, 1))
            params = sharding.place(params, sharding.replicated(mesh))
            one = lambda key, part: function(params, key, part, **options)
            return in_chunks(one, key, observed, mesh, size=size, axes=axes)

        return call

    def log_density(params, observed, z):
        whole = jax.tree.leaves(z)[0]
        num = len(next(iter(observed.values()), ()))
        if not _can_be_cut((params, z), observed) or whole.ndim < 2 or whole.shape[-2] not in (1, num):
            return model.posterior_log_density(params, observed, z)
        own = whole.shape[-2] == num  # a point for each observation; else one for all
        params = sharding.place(params, sharding.replicated(mesh))
        rows = {"observed": observed} | (
            {"z": jax.tree.map(lambda leaf: np.moveaxis(np.asarray(leaf), -2, 0), z)} if own else {}
        )

        def one(_, part):
            there = jax.tree.map(_back, part["z"]) if own else z
            return model.posterior_log_density(params, part["observed"], there)

        return in_chunks(
            one, None, rows, mesh, size=size_of(observed, whole.size // whole.shape[-1] // whole.shape[-2]), axes=-1
        )

    return dataclasses.replace(
        model,
        sample_posterior=random(model.sample_posterior, "num_samples", (1, 0)),
        log_likelihood=random(model.log_likelihood, None, 0),
        elbo=random(model.elbo, None, 0),
        log_normaliser=None if model.log_normaliser is None else random(model.log_normaliser, None, 0),
        posterior_log_density=log_density,
    )


def _back(leaf: types.Array) -> types.Array:
    """Returns `[.., B, D]` of an array `[B, .., D]`."""
    return jnp.moveaxis(leaf, 0, -2)


def in_chunks(
    function: Callable[[types.Array | None, Any], Any],
    key: types.Array | None,
    rows: Any,
    mesh: Mesh,
    *,
    size: int,
    axes: Any,
) -> Any:
    """Returns function(key, rows) computed in chunks of `size` rows, in every process.

    Args:
      function: (key, rows) -> a pytree of arrays.
      key: of the first chunk; the others have keys of their own.
      rows: pytree of arrays or files, leaves `[N, ..]`.
      mesh: devices over which each chunk is split.
      size: rows of a chunk, rounded up to a multiple of the devices.
      axes: a prefix of the function's result: which axis of its leaves is that of the rows.
    """
    num = len(jax.tree.leaves(rows)[0])
    size = -(-min(size, num) // mesh.size) * mesh.size
    parts = []
    for number, start in enumerate(range(0, num, size)):
        chosen = np.arange(start, start + size) % num
        part = jax.tree.map(lambda leaf, chosen=chosen: leaf[chosen], rows)
        own = key if key is None or not number else keys.stream(key, "chunk", number)
        found = function(own, sharding.place(part, sharding.over_batch(mesh)))
        parts.append(found if size >= num and mesh.size == 1 else sharding.on_host(found))
    join = lambda axis, *found: jax.tree.map(functools.partial(_joined, axis, num), *found)
    joined = jax.tree.map(join, axes, *parts)
    # on one device, where everything else computes
    return jax.device_put(joined) if len(parts) == 1 else joined


def _joined(axis: int, num: int, *leaves: Any) -> Any:
    whole = leaves[0] if len(leaves) == 1 else np.concatenate(leaves, axis=axis)
    cut = [slice(None)] * whole.ndim
    cut[axis] = slice(num)
    return whole[tuple(cut)]


def _can_be_cut(others: Any, observed: types.Batch) -> bool:
    """Returns whether these are concrete observations of one number; the model says what is wrong with any other."""
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((others, observed))):
        return False
    lengths = {len(x) if getattr(x, "shape", ()) else 0 for x in observed.values()}
    return len(lengths) == 1 and min(lengths) > 0
