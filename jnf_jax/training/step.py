"""The compiled inner loop: K training steps in one call, on data that stay on the device or on K batches that were brought there.

A step's randomness depends on the stage's key and the step's number alone, and an epoch's permutation on the epoch's, so that a run
continued from any step is bit for bit the run that was never stopped.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from jnf_jax import compiling, keys, types
from jnf_jax.models import base
from jnf_jax.training import processes, sharding


class TrainState(NamedTuple):
    """What the next step needs."""

    step: types.Array  # [] int32, steps taken
    trainable: types.Params  # the entries of params that the stage owns
    opt_state: Any  # of the optimiser
    rate_scale: types.Array  # [] factor on the learning rate, set by the plateau schedule
    failed_step: types.Array  # [] int32, the step whose loss or gradient was not finite, -1 while all were


class Steps(NamedTuple):
    """What one call reports, means over its steps."""

    loss: types.Array  # []
    gradient_norm: types.Array  # []
    metrics: dict[str, types.Array]  # [] each


TrainCall = Callable[..., tuple[TrainState, Steps]]  # of (state, frozen params, stage key, data, number of steps)


def make_train_call(
    stage: base.Stage,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    *,
    batch_size: int,
    num_steps: int,
    total_steps: int | None = None,
    streamed: bool = False,
) -> TrainCall:
    """Returns a jitted function (state, frozen params, stage key, data, num=None) -> (state, report) that takes `num_steps` steps.

    With `num` `[]` int32 it takes so many instead; one compiled program serves any number.

    `data` is a pytree with leaves `[N, ..]`, N at least the batch size; the last incomplete batch of an epoch is left out. Where `streamed`, it
    is the batches themselves, leaves `[num_steps, batch_size, ..]`. From a loss or gradient that is not finite on, the parameters stay as
    they are. `total_steps`, those of the whole stage, are what an annealed loss goes by; no other needs them.

    Raises:
      ValueError: if the stage's loss is annealed and the steps of the whole stage are not given.
    """
    if stage.annealed is not None and total_steps is None:
        raise ValueError(f"Expected total_steps for stage {stage.name!r}, whose loss is annealed, got None.")

    def call(state, frozen, key, data, num=None):
        num_examples = len(jax.tree.leaves(data)[0])
        per_epoch = max(1, num_examples // batch_size)

        def permutation(key, step):
            return permuted(key, step // per_epoch, num_examples)

        def drawn(step, order, key, data):
            position = step % per_epoch
            order = jax.lax.cond(position == 0, lambda: permutation(key, step), lambda: order)
            rows = jax.lax.dynamic_slice(order, (position * batch_size,), (batch_size,))
            return order, jax.tree.map(lambda leaf: leaf[rows], data)

        @jax.jit  # traced once, for its report's shapes and in the loop
        def one_step(state, order, frozen, key, data):
            if streamed:
                batch = jax.tree.map(lambda leaf: leaf[state.step % num_steps], data)
            else:
                order, batch = drawn(state.step, order, key, data)
            batch = jax.lax.with_sharding_constraint(batch, sharding.over_batch(mesh))
            state, report = _update(stage, optimizer, state, frozen, keys.stream(key, "step", state.step), batch, total_steps)
            return jax.lax.with_sharding_constraint(state, sharding.of_state(mesh, state)), order, report

        def add_step(_, carry):
            *carry, total = carry
            *carry, report = one_step(*carry, frozen, key, data)
            return *carry, jax.tree.map(jnp.add, total, report)

        num = num_steps if num is None else num
        order = () if streamed else permutation(key, state.step)
        report = jax.eval_shape(one_step, state, order, frozen, key, data)[-1]
        nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), report)
        state, _, total = jax.lax.fori_loop(0, num, add_step, (state, order, nothing))
        return state, jax.tree.map(lambda leaf: leaf / num, total)

    return jax.jit(call, donate_argnums=0)


def compiled_first(call: TrainCall) -> TrainCall:
    """Returns the call, compiled before it needs memory, and by all processes before one begins, for collectives do not wait for a compilation."""
    programs: dict[bool, TrainCall] = {}

    def run(state, frozen, key, data, num=None):
        arguments = (state, frozen, key, data, num)
        told = num is not None
        if told not in programs:
            programs[told] = compiling.for_training(call.lower(*arguments))
            processes.meet()
        return programs[told](*arguments)

    return run


def permuted(key: types.Array, epoch: types.Array | int, num_examples: int) -> types.Array:
    """Returns the order `[num_examples]` of an epoch's examples, given the stage's key."""
    return jax.random.permutation(keys.stream(key, "epoch", epoch), num_examples)


def make_step(
    stage: base.Stage, optimizer: optax.GradientTransformation, *, total_steps: int
) -> Callable[[TrainState, types.Params, types.Array, Any], tuple[TrainState, Steps]]:
    """Returns a jitted function (state, frozen params, step key, batch) -> (state, report): one step, to be looked at."""
    return jax.jit(lambda *arguments: _update(stage, optimizer, *arguments, total_steps))


def _update(stage, optimizer, state: TrainState, frozen, key, batch, total_steps: int | None) -> tuple[TrainState, Steps]:
    def loss_of(trainable):
        params = {**frozen, **trainable}
        if stage.annealed is None:
            return stage.loss(params, key, batch)
        return stage.annealed(params, key, batch, state.step / total_steps)

    (loss, metrics), gradient = jax.value_and_grad(loss_of, has_aux=True)(state.trainable)
    norm = optax.tree.norm(gradient)
    finite = jnp.isfinite(loss) & jnp.isfinite(norm) & (state.failed_step < 0)
    moved = _moved_by_branches if jax.default_backend() == "cpu" else _moved
    trainable, opt_state = moved(optimizer, finite, gradient, state.trainable, state.opt_state, state.rate_scale)
    return TrainState(
        step=state.step + 1,
        trainable=trainable,
        opt_state=opt_state,
        rate_scale=state.rate_scale,
        failed_step=jnp.where(finite | (state.failed_step >= 0), state.failed_step, state.step),
    ), Steps(loss=loss, gradient_norm=norm, metrics=metrics)


def _moved(optimizer, finite, gradient, trainable, opt_state, rate_scale):
    """Returns the parameters and the optimiser's state after a step; as they are where it was not finite."""
    updates, new_state = optimizer.update(gradient, opt_state, trainable)
    updates = jax.tree.map(lambda u: u * rate_scale.astype(u.dtype), updates)
    keep = lambda new, old: jax.tree.map(lambda n, o: jnp.where(finite, n, o), new, old)
    return keep(optax.apply_updates(trainable, updates), trainable), keep(new_state, opt_state)


def _moved_by_branches(optimizer, finite, gradient, trainable, opt_state, rate_scale):
    """`_moved` where XLA computes the moments twice, for themselves and for the parameters, from the old ones, which it would copy first.

    The first branch is over before the second begins, so that both write where the old values lie.
    """

    def move(trainable):
        return _moved(optimizer, True, gradient, trainable, opt_state, rate_scale)[0], jnp.array(True)

    def remember(opt_state):
        return optimizer.update(gradient, opt_state, trainable)[1]

    moved, going = jax.lax.cond(finite, move, lambda trainable: (trainable, jnp.array(False)), trainable)
    return moved, jax.lax.cond(going, remember, lambda opt_state: opt_state, opt_state)
