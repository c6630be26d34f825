"""What a compiled call trains on: data that stay on the device, or batches that are read from files while the device computes.

Both take the same examples in the same order, for the epoch's permutation depends on the stage's key and the epoch alone.
"""

import collections
import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator
from concurrent import futures
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding

from jnf_jax import types
from jnf_jax.data import stream
from jnf_jax.models import base
from jnf_jax.training import sharding, step

_AHEAD = 2  # pieces that are read while one is used


def is_streamed(data: Any) -> bool:
    """Returns whether some of the data stay in files."""
    return any(isinstance(leaf, stream.Rows) for leaf in jax.tree.leaves(data))


def calls(
    data: Any, key: types.Array, mesh: Mesh, *, batch_size: int, num_steps: int, first_step: int, total_steps: int
) -> Iterator[Any]:
    """Yields what each compiled call of `num_steps` steps takes, from the call on that `first_step` lies in.

    Data in arrays are copied to every device once. Data in files are read as batches `[num_steps, batch_size, ..]`, in each process those of its own
    devices.
    """
    if not is_streamed(data):
        return itertools.repeat(sharding.place(data, sharding.replicated(mesh)))
    num_examples = len(jax.tree.leaves(data)[0])
    per_epoch = num_examples // batch_size
    cpu = jax.local_devices(backend="cpu")[0]
    key = jax.device_put(key, cpu)

    @functools.lru_cache(maxsize=2)
    def order(epoch: int) -> np.ndarray:
        with jax.default_device(cpu):
            return np.asarray(_permuted(key, epoch, num_examples))

    def read(first: int) -> Any:
        steps = range(first, first + num_steps)
        rows = np.stack([order(s // per_epoch)[s % per_epoch * batch_size :][:batch_size] for s in steps])
        return jax.tree.map(lambda leaf: _placed(leaf, rows, sharding.over_batch(mesh, axis=1)), data)

    return _ahead(read, range(first_step - first_step % num_steps, total_steps, num_steps))


_permuted = jax.jit(step.permuted, static_argnums=2)


def batches(data: Any, mesh: Mesh, *, batch_size: int) -> Iterator[Any]:
    """Yields data in files as batches `[batch_size, ..]`, in their order, the last one smaller."""
    num_examples = len(jax.tree.leaves(data)[0])

    def read(start: int) -> Any:
        rows = np.arange(start, min(start + batch_size, num_examples))
        split = sharding.over_batch(mesh) if len(rows) % mesh.size == 0 else sharding.replicated(mesh)
        return jax.tree.map(lambda leaf: _placed(leaf, rows, split), data)

    return _ahead(read, range(0, num_examples, batch_size))


def as_it_goes(stage: base.Stage) -> base.Stage:
    """Returns the stage whose loss takes the data as they are: what the stage prepares is computed at every step."""
    if stage.prepare is None:
        return stage

    def on_prepared(loss: Callable) -> Callable:
        return lambda params, key, batch, *progress: loss(
            params, key, jax.lax.stop_gradient(stage.prepare(jax.lax.stop_gradient(params), batch)), *progress
        )

    annealed = None if stage.annealed is None else on_prepared(stage.annealed)
    return dataclasses.replace(stage, prepare=None, loss=on_prepared(stage.loss), annealed=annealed)


def _placed(leaf: Any, rows: np.ndarray, split: NamedSharding) -> jax.Array:
    dtype = jax.dtypes.canonicalize_dtype(leaf.dtype)

    def part(index: tuple[slice, ...]) -> np.ndarray:
        own = rows[index[: rows.ndim]]
        return leaf[own.reshape(-1)].reshape(*own.shape, *leaf.shape[1:]).astype(dtype, copy=False)

    return jax.make_array_from_callback((*rows.shape, *leaf.shape[1:]), split, part)


def _ahead(read: Callable[[int], Any], positions: Iterable[int]) -> Iterator[Any]:
    """Yields `read(position)` of each position; the next ones are read meanwhile."""
    pool = futures.ThreadPoolExecutor(_AHEAD, thread_name_prefix="feed")
    pending: collections.deque[futures.Future] = collections.deque()
    try:
        for position in positions:
            pending.append(pool.submit(read, position))
            if len(pending) > _AHEAD:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
