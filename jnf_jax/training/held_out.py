"""The mean loss over validation data, which lie on the device or stay in files.

Its random numbers depend on the batches. Their size depends on the data and on the settings alone, so that any number of devices validates
alike.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from jnf_jax import keys, types
from jnf_jax.models import base
from jnf_jax.training import feed, sharding


def mean_loss(stage: base.Stage, data: Any, mesh: Mesh, *args: Any, batch_size: int) -> Callable[..., types.Array]:
    """Returns (trainable, frozen, key) -> the mean loss `[]` over the validation data.

    Args:
      stage: whose loss it is.
      data: pytree, leaves `[N, ..]`.
      mesh: devices.
      *args: what it is compiled for, where the data lie on the device.
      batch_size: examples at once, at most.
    """
    if not stage.whole_batches:
        batch_size = even_batch(len(jax.tree.leaves(data)[0]), most=batch_size)
    if feed.is_streamed(data):
        validate = of_batches(feed.as_it_goes(stage), batch_size=batch_size)
        return lambda *args: validate(*args, feed.batches(data, mesh, batch_size=batch_size))
    data = sharding.place(data, sharding.replicated(mesh))
    validate = of_arrays(stage, mesh, batch_size=batch_size).lower(*args, data).compile()
    return lambda *args: validate(*args, data)


def even_batch(num_examples: int, *, most: int) -> int:
    """Returns a batch size of more than half of `most` that leaves no smaller last batch, which would be compiled apart.

    Of these it takes the one that splits over most of the meshes that `most` splits over. Where there is none it is `most`.
    """
    even = [size for size in range(most, most // 2, -1) if num_examples % size == 0]
    return max(even, key=lambda size: math.gcd(size, most), default=most)


def of_arrays(
    stage: base.Stage, mesh: Mesh, *, batch_size: int
) -> Callable[[types.Params, types.Params, types.Array, Any], types.Array]:
    """Returns a jitted function (trainable, frozen, key, data) -> mean loss `[]` over all examples, the last batch smaller.

    Where the stage's loss is that of a whole batch, the last one counts only if there is no other.
    """

    def validate(trainable, frozen, key, data):
        params = {**frozen, **trainable}
        num_examples = len(jax.tree.leaves(data)[0])
        full = num_examples // batch_size

        def loss(step, batch):
            if len(jax.tree.leaves(batch)[0]) % mesh.size == 0:
                batch = jax.lax.with_sharding_constraint(batch, sharding.over_batch(mesh))
            return stage.loss(params, keys.stream(key, "validation", step), batch)[0]

        total = jnp.zeros(())
        if full:
            batches = jax.tree.map(lambda leaf: leaf[: full * batch_size].reshape(full, batch_size, *leaf.shape[1:]), data)
            total += batch_size * jax.lax.map(lambda args: loss(*args), (jnp.arange(full), batches)).sum()
        rest = num_examples - full * batch_size
        if stage.whole_batches and full and rest:
            return total / (num_examples - rest)
        if rest:
            total += rest * loss(full, jax.tree.map(lambda leaf: leaf[full * batch_size :], data))
        return total / num_examples

    return jax.jit(validate)


def of_batches(
    stage: base.Stage, *, batch_size: int
) -> Callable[[types.Params, types.Params, types.Array, Iterable[Any]], types.Array]:
    """Returns what `of_arrays` returns, for batches that come one after another, each of `batch_size` examples but the last."""

    @jax.jit
    def loss(trainable, frozen, key, step, batch):
        return stage.loss({**frozen, **trainable}, keys.stream(key, "validation", step), batch)[0]

    def validate(trainable, frozen, key, batches):
        total, num_examples = 0.0, 0
        for number, batch in enumerate(batches):
            size = len(jax.tree.leaves(batch)[0])
            if stage.whole_batches and number and size < batch_size:
                continue
            total += size * float(loss(trainable, frozen, key, jnp.int32(number), batch))
            num_examples += size
        return jnp.asarray(total / num_examples)

    return validate
