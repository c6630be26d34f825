"""Training one stage to its end: calls of K steps, validation between them, the best weights returned.

`fit` knows a stage, data and a mesh, no model. It is a generator of nothing: progress goes to a callback, checkpoints to a
`Checkpoints` (or nowhere).
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from jnf_jax import compiling, configs, types
from jnf_jax.models import base
from jnf_jax.training import feed, held_out, sharding, step

_PLATEAU_FACTOR = 0.1  # on the learning rate


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(configs.Component):
    """How a stage is trained.

    Attributes:
      num_steps: number of optimiser steps; rounded up to whole calls.
      batch_size: examples per step.
      learning_rate: of Adam, at its peak.
      schedule: `constant`; `cosine`: warmed up over `warmup_steps`, then down to 0 at the last step; `plateau`: divided by 10 after
        `plateau_patience` validations without a better loss.
      warmup_steps: steps over which the cosine schedule rises.
      plateau_patience: validations without improvement before the plateau schedule acts.
      clip_norm: largest global norm of a gradient; None leaves gradients as they are.
      weight_decay: decoupled weight decay (AdamW).
      steps_per_call: K, steps in one compiled call.
      calls_per_validation: calls between two validations (and checkpoints).
      early_stopping: validations without improvement after which the stage ends; None never. As for the plateau schedule, validations before the
        stage's annealing is over do not count.
    """

    num_steps: int = 2_000
    batch_size: int = 128
    learning_rate: float = 1e-3
    schedule: Literal["constant", "cosine", "plateau"] = "cosine"
    warmup_steps: int = 100
    plateau_patience: int = 10
    clip_norm: float | None = 10.0
    weight_decay: float = 0.0
    steps_per_call: int = 50
    calls_per_validation: int = 4
    early_stopping: int | None = None

    def __post_init__(self):
        super().__post_init__()
        for name in ("num_steps", "batch_size", "steps_per_call", "calls_per_validation", "plateau_patience"):
            if getattr(self, name) < 1:
                raise ValueError(f"Expected a {name} of at least 1, got {getattr(self, name)}.")
        if not self.learning_rate > 0:
            raise ValueError(f"Expected a positive learning rate, got {self.learning_rate}.")
        if self.early_stopping is not None and self.early_stopping < 1:
            raise ValueError(f"Expected early stopping after at least 1 validation, or None, got {self.early_stopping}.")
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise ValueError(f"Expected a positive clip_norm, or None, got {self.clip_norm}.")
        for name in ("warmup_steps", "weight_decay"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"Expected a {name} of at least 0, got {getattr(self, name)}.")

    @property
    def num_calls(self) -> int:
        """Number of compiled calls."""
        return -(-self.num_steps // self.steps_per_call)


class FitState(NamedTuple):
    """Everything that a resumed stage needs."""

    train: step.TrainState
    best: types.Params  # trainable, at the lowest validation loss
    best_loss: types.Array  # []
    since_best: types.Array  # [] int32, validations since


@dataclasses.dataclass(frozen=True)
class Report:
    """What one call brought, for the callback; plain numbers.

    Attributes:
      stage: name of the stage.
      step: steps taken so far.
      num_steps: steps of the whole stage.
      loss: mean over the call.
      metrics: means over the call.
      validation_loss: where the call ended in a validation.
    """

    stage: str
    step: int
    num_steps: int
    loss: float
    metrics: dict[str, float]
    validation_loss: float | None = None


class NonFiniteError(ValueError):
    """A loss or its gradient was not finite; `params` are the weights before that step, or those that were validated."""

    def __init__(self, stage: str, failed_step: int, params: types.Params, *, what: str = "loss and gradient"):
        super().__init__(
            f"Expected a finite {what}, got none at step {failed_step} of stage {stage!r}: other data there, or in a run of its own "
            "a smaller learning rate or clip_norm, may help."
        )
        self.failed_step = failed_step
        self.params = params


class Checkpoints(Protocol):
    """Where a stage's states go."""

    def latest(self, like: FitState) -> FitState | None:
        """Returns the newest state, None where there is none."""

    def save(self, state: FitState, *, step: int, loss: float | None) -> None:
        """Keeps a state and the validation loss it has, if any; returns once its arrays may be overwritten."""


def fit(
    stage: base.Stage,
    params: types.Params,
    key: types.Array,
    train: Any,
    validation: Any,
    *,
    config: Config,
    mesh: Mesh | None = None,
    checkpoints: Checkpoints | None = None,
    on_report: Callable[[Report], None] = lambda report: None,
    on_validation: Callable[[Report, types.Params], None] = lambda report, params: None,
    should_stop: Callable[[], bool] = lambda: False,
    should_save: Callable[[bool], bool] = lambda validated: validated,
    pace: Callable[[int], int] | None = None,
) -> tuple[types.Params, bool]:
    """Trains one stage.

    Args:
      stage: what to minimise over which entries of `params`.
      params: all parameters.
      key: the stage's key.
      train: pytree, leaves `[N, ..]`; already prepared where the stage prepares, unless some of them stay in files (`data.stream.Rows`).
      validation: the same, for the choice of the best weights.
      config: settings.
      mesh: devices; all of them where None.
      checkpoints: where states go and come from.
      on_report: called after each compiled call.
      on_validation: called after each validation, with all parameters as they are then.
      should_stop: asked after each call, or part of one; true ends the stage early with its state saved.
      should_save: asked after each call, given whether it ended in a validation; the stage's last state is saved always.
      pace: asked for the number of steps to take at once, given those left in the call, before `should_stop` is asked again; None takes them all.

    Returns:
      params with the stage's best weights, and whether the stage ran to its end.

    Raises:
      NonFiniteError: if the loss or a gradient was not finite, or no validation loss so far.
      ValueError: if there are fewer examples than one batch, or the batch does not split over the mesh.
    """
    mesh = mesh or sharding.make_mesh()
    check_batch(len(jax.tree.leaves(train)[0]), config.batch_size, mesh)
    optimizer = make_optimizer(config)
    total = config.num_calls * config.steps_per_call
    call = step.make_train_call(
        feed.as_it_goes(stage) if feed.is_streamed(train) else stage,
        optimizer,
        mesh,
        batch_size=config.batch_size,
        num_steps=config.steps_per_call,
        total_steps=total,
        streamed=feed.is_streamed(train),
    )

    state = _first_state(stage, params, optimizer, checkpoints)
    state = sharding.place(state, sharding.of_state(mesh, state))
    frozen = {name: value for name, value in params.items() if name not in stage.trainable}
    frozen = sharding.place(frozen, sharding.of_state(mesh, frozen))
    taken = int(state.train.step)
    per_validation = config.steps_per_call * config.calls_per_validation
    feeding = feed.calls(
        train, key, mesh,
        batch_size=config.batch_size, num_steps=config.steps_per_call, first_step=taken, total_steps=total,
    )  # fmt: skip
    key = sharding.place(key, sharding.replicated(mesh))
    validate = None
    if taken < total:  # compiled while nothing would be lost
        validate = held_out.mean_loss(stage, validation, mesh, state.train.trainable, frozen, key, batch_size=config.batch_size)

    call = _in_parts(step.compiled_first(call), mesh, steps_per_call=config.steps_per_call, pace=pace, should_stop=should_stop)
    while taken < total and not _stopped_early(state, config):
        trained, done = call(state.train, frozen, key, next(feeding), taken)
        state = state._replace(train=trained)
        taken, validated, stopping = taken + done.num_steps, None, done.stopping
        if done.failed_step < 0 and (taken % per_validation == 0 or taken == total):
            loss = validate(state.train.trainable, frozen, key)
            state = _judge(state, loss, config, annealing=taken < stage.annealing * total)
            validated = float(loss)
        report = _report(stage.name, taken, total, done.steps, validated)
        on_report(report)
        if done.failed_step >= 0:
            raise NonFiniteError(stage.name, done.failed_step, {**params, **_local(state.train.trainable)})
        if validated is not None and not np.isfinite(state.best_loss):
            raise NonFiniteError(stage.name, taken, {**params, **_local(state.train.trainable)}, what="validation loss")
        if validated is not None:
            on_validation(report, {**params, **_local(state.train.trainable)})
        ended = taken == total or _stopped_early(state, config)
        if checkpoints is not None and (stopping or ended or should_save(validated is not None)):
            checkpoints.save(state, step=taken, loss=validated)
        if stopping and taken < total:
            return {**params, **_local(state.train.trainable)}, False
    return {**params, **_local(state.best)}, True


class _Done(NamedTuple):
    """What a call, or the rest of one, brought."""

    num_steps: int
    failed_step: int  # -1 where all were finite
    stopping: bool
    steps: step.Steps  # means over them


def _in_parts(
    call: step.TrainCall, mesh: Mesh, *, steps_per_call: int, pace: Callable[[int], int] | None, should_stop: Callable[[], bool]
) -> Callable[..., tuple[step.TrainState, _Done]]:
    """Returns a function (state, frozen params, stage key, data, steps taken) -> (state, _Done) that takes what is left of a call.

    In parts as `pace` says. It ends early where `should_stop` returns true, or after a step that was not finite.
    """
    everywhere = sharding.replicated(mesh)

    def run(state, frozen, key, data, taken):
        left, done = steps_per_call - taken % steps_per_call, 0
        whole = pace is None and left == steps_per_call and jax.process_count() == 1
        failed, stopping, reports = -1, False, []
        while done < left and failed < 0 and not stopping:
            num = left if pace is None else max(1, min(left - done, pace(left - done)))
            state, steps = call(state, frozen, key, data, None if whole else sharding.place(np.int32(num), everywhere))
            failed, steps = jax.device_get((state.failed_step, steps))
            reports.append((num, steps))
            done, stopping = done + num, should_stop()
        return state, _Done(done, int(failed), stopping, _mean(reports))

    return run


def check_batch(num_examples: int, batch_size: int, mesh: Mesh | None = None) -> None:
    """Checks a batch's size.

    Raises:
      ValueError: if there are fewer examples than one batch, or the batch does not split over the mesh (all devices where None).
    """
    sharding.check_batch(mesh or sharding.make_mesh(), batch_size)
    if num_examples < batch_size:
        raise ValueError(f"Expected at least one batch of {batch_size} examples, got {num_examples} examples.")


def prepare(stage: base.Stage, params: types.Params, data: types.Batch, *, batch_size: int) -> Any:
    """Returns what the stage's loss takes: `data` itself, or what the frozen parts make of them, computed in batches.

    Data in files come back as they are: `fit` prepares them batch by batch.
    """
    if stage.prepare is None or feed.is_streamed(data):
        return data
    num_examples = len(jax.tree.leaves(data)[0])
    compute = jax.jit(stage.prepare)
    parts = [
        compute(params, jax.tree.map(lambda leaf: leaf[start : start + batch_size], data))
        for start in range(0, num_examples, batch_size)
    ]
    join = jax.jit(lambda *parts: jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *parts))
    return join(*parts) if len(parts) > 1 else parts[0]


def make_optimizer(config: Config) -> optax.GradientTransformation:
    """Returns Adam under the config's schedule and clipping."""
    rate = config.learning_rate
    if config.schedule == "cosine":
        total = config.num_calls * config.steps_per_call
        rate = optax.warmup_cosine_decay_schedule(
            0.0, config.learning_rate, warmup_steps=min(config.warmup_steps, total // 2), decay_steps=total
        )
    clip = optax.identity() if config.clip_norm is None else optax.clip_by_global_norm(config.clip_norm)
    return optax.chain(clip, optax.adamw(rate, weight_decay=config.weight_decay))


def initial_train_state(stage: base.Stage, params: types.Params, optimizer: optax.GradientTransformation) -> step.TrainState:
    """Returns the state before the first step; its buffers are copies, so that they may be donated.

    Raises:
      ValueError: if the stage owns what `params` has not.
    """
    missing = [name for name in stage.trainable if name not in params]
    if missing:
        raise ValueError(f"Expected params with the entries {list(stage.trainable)}, got {sorted(params)}.")
    build = lambda trainable: step.TrainState(
        step=jnp.zeros((), jnp.int32),
        trainable=_copy(trainable),
        opt_state=optimizer.init(trainable),
        rate_scale=jnp.ones(()),
        failed_step=jnp.full((), -1, jnp.int32),
    )
    return compiling.once(build)({name: params[name] for name in stage.trainable})


def _report(name: str, taken: int, total: int, steps: step.Steps, validated: float | None) -> Report:
    metrics = {"gradient_norm": float(steps.gradient_norm)} | {k: float(v) for k, v in steps.metrics.items()}
    return Report(name, taken, total, float(steps.loss), metrics, validated)


def _mean(reports: list[tuple[int, step.Steps]]) -> step.Steps:
    """Returns the mean over a call, given the means over its parts."""
    total = sum(num for num, _ in reports)
    return jax.tree.map(
        lambda *leaves: sum(n * x for (n, _), x in zip(reports, leaves, strict=True)) / total, *(r for _, r in reports)
    )


def _first_state(stage, params, optimizer, checkpoints: Checkpoints | None) -> FitState:
    """Returns the state that the stage continues at, or begins with."""

    def build(trainable):
        train = initial_train_state(stage, trainable, optimizer)
        return FitState(
            train, best=_copy(train.trainable), best_loss=jnp.full((), jnp.inf), since_best=jnp.zeros((), jnp.int32)
        )

    state = compiling.once(build)({name: params[name] for name in stage.trainable if name in params})
    restored = None if checkpoints is None else checkpoints.latest(state)
    return state if restored is None else restored


@jax.jit
def _copy(tree):
    """Returns copies by one program; one for each shape would be compiled otherwise, at every start."""
    return jax.tree.map(jnp.copy, tree)


def _local(tree):
    """Returns whole arrays on this process's first device, what every function outside training takes."""
    return jax.device_put(sharding.on_host(tree), may_alias=False)


def _judge(state: FitState, loss: types.Array, config: Config, *, annealing: bool) -> FitState:
    """Returns the state after a validation. While the loss is annealed, validations without improvement are not counted."""
    if np.asarray(loss) < np.asarray(state.best_loss):
        return state._replace(best=_copy(state.train.trainable), best_loss=loss, since_best=jnp.zeros((), jnp.int32))
    if annealing:
        return state
    since = int(state.since_best) + 1
    train = state.train
    if config.schedule == "plateau" and since % config.plateau_patience == 0:
        train = train._replace(rate_scale=_PLATEAU_FACTOR * train.rate_scale)
    return state._replace(train=train, since_best=jnp.asarray(since, jnp.int32))


def _stopped_early(state: FitState, config: Config) -> bool:
    return config.early_stopping is not None and int(state.since_best) >= config.early_stopping
