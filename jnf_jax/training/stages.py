"""Training all stages of a model in turn; a finished stage is kept and never trained again."""

import pathlib
from collections.abc import Callable, Mapping

import jax

from jnf_jax import keys, types
from jnf_jax.data import source
from jnf_jax.models import base
from jnf_jax.training import checkpoint, fit, weights

_PREPARE_BATCH = 500


def train(
    model: base.Model,
    key: types.Array,
    data: Mapping[str, source.Source],
    *,
    settings: Mapping[str, fit.Config],
    folder: pathlib.Path | str | None = None,
    on_report: Callable[[fit.Report], None] = lambda report: None,
    on_validation: Callable[[fit.Report, types.Params], None] = lambda report, params: None,
    on_resume: Callable[[str, int, list[str]], None] = lambda stage, step, damaged: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> tuple[types.Params, bool]:
    """Trains every stage that is not finished yet.

    Args:
      model: the model.
      key: of initialisation and training.
      data: with the splits `train` and `validation`.
      settings: stage -> how it is trained.
      folder: where checkpoints and finished stages are kept and found; None keeps nothing.
      on_report: called after each compiled call.
      on_validation: called after each validation, with all parameters as they are then; the next call overwrites them.
      on_resume: called with (stage, step, damaged) before a stage's first call: the step it continues at, 0 at its start, and what newer
        checkpoints suffered, one line each.
      should_stop: asked after each compiled call.

    Returns:
      params, and whether every stage ran to its end.

    Raises:
      ValueError: as `check`.
    """
    check(model, data, settings)
    folder = None if folder is None else pathlib.Path(folder)
    params = jax.jit(model.init)(keys.stream(key, "init"))
    for stage in model.stages:
        done = finished(folder, stage)
        if done is not None and (best := done.latest(_owned(stage, params))) is not None:
            params = {**params, **best}
            continue
        states = None if folder is None else checkpoint.Directory(folder / "checkpoints" / stage.name)
        on_resume(stage.name, (states.newest() or 0) if states else 0, states.damaged if states else [])
        if stage.begin is not None:
            params = stage.begin(params)
        if stage.solve is not None:
            arrays = [data[split].arrays for split in ("train", "validation")]
            params = {**params, **stage.solve(params, keys.stream(key, f"{stage.name} solve"), *arrays)}
        num_steps = 0
        if stage.loss is not None:
            train_data, validation = (
                fit.prepare(stage, params, data[split].batch(), batch_size=_PREPARE_BATCH) for split in ("train", "validation")
            )
            params, complete = fit.fit(
                stage,
                params,
                keys.stream(key, stage.name),
                train_data,
                validation,
                config=settings[stage.name],
                checkpoints=states,
                on_report=on_report,
                on_validation=on_validation,
                should_stop=should_stop,
            )
            if not complete:
                return params, False
            num_steps = settings[stage.name].num_steps
        if done is not None:
            done.save(_owned(stage, params), step=num_steps)
    return params, True


def check(model: base.Model, data: Mapping[str, source.Source], settings: Mapping[str, fit.Config]) -> None:
    """Checks, before anything is compiled or written, that a model can be trained on these data by these settings.

    Args:
      model: the model.
      data: with the splits `train` and `validation`.
      settings: stage -> how it is trained.

    Raises:
      ValueError: if a stage has no settings, or settings no stage; examples lack modalities and a stage does not take them; a batch is larger than the data or does not split over the
        devices; the networks do not fit the data; or a stage's loss takes no batch of that size.
    """
    names = [stage.name for stage in model.stages if stage.loss is not None]
    if set(settings) != set(names):
        raise ValueError(f"Expected settings for the stages {names}, got {sorted(settings)}.")
    for config in settings.values():
        fit.check_batch(len(data["train"]), config.batch_size)
    key = jax.random.key(0)
    params = jax.eval_shape(model.init, key)
    lacking = any(data[split].masks for split in ("train", "validation"))
    for stage in model.stages:
        if lacking and not stage.incomplete:
            raise ValueError(f"Expected examples with every modality for stage {stage.name!r}, got some that lack modalities.")
        if stage.begin is not None:
            params = jax.eval_shape(stage.begin, params)
        if stage.loss is None:
            continue
        sizes = {settings[stage.name].batch_size}
        if stage.whole_batches:  # a loss that is a mean over examples takes a validation's last, smaller batch as well
            sizes |= {min(len(data["validation"]), *sizes)}
        for size in sizes:
            batch = jax.tree.map(lambda x, n=size: jax.ShapeDtypeStruct((n, *x.shape[1:]), x.dtype), data["train"].batch())
            if stage.prepare is not None:
                batch = jax.eval_shape(stage.prepare, params, batch)
            jax.eval_shape(stage.loss, params, key, batch)


def load(model: base.Model, folder: pathlib.Path | str) -> types.Params:
    """Returns the parameters of a model all of whose stages are finished, or those that `weights.save` wrote into the folder.

    Raises:
      ValueError: if a stage is not finished, or a file is damaged or another model's.
    """
    if weights.found(folder):
        return weights.read(model, folder)
    params = jax.jit(model.init)(jax.random.key(0))
    for stage in model.stages:
        best = finished(pathlib.Path(folder), stage).latest(_owned(stage, params))
        if best is None:
            raise ValueError(f"Expected a finished stage {stage.name!r} in {folder}, got none: resume its training first.")
        params = {**params, **best}
    return params


def check_fits(model: base.Model, folder: pathlib.Path, name: str) -> None:
    """Checks that a finished stage in a folder has the leaves that this model's stage of that name has.

    Raises:
      ValueError: if not; the first leaf that differs is named.
    """
    params = jax.eval_shape(model.init, jax.random.key(0))
    stage = next(stage for stage in model.stages if stage.name == name)
    finished(folder, stage).check(_owned(stage, params))


def finished(folder: pathlib.Path | None, stage: base.Stage) -> checkpoint.Directory | None:
    """Returns where the best weights of a finished stage are."""
    return None if folder is None else checkpoint.Directory(folder / "params" / stage.name, keep=1)


def _owned(stage: base.Stage, params: types.Params) -> types.Params:
    return {name: params[name] for name in stage.trainable}
