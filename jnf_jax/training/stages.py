"""Training all stages of a model in turn; a finished stage is kept and never trained again.

A finished stage that was damaged comes back from its own checkpoints, or is trained again where those are damaged too.
"""

import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from jnf_jax import compiling, configs, keys, types
from jnf_jax.data import source
from jnf_jax.models import base
from jnf_jax.training import checkpoint, files, fit, manifests, preconditions, processes, starts, weights

_PREPARE_BATCH = 500
_DEFAULT = checkpoint.Policy()


def train(
    model: base.Model,
    key: types.Array,
    data: Mapping[str, source.Source],
    *,
    settings: Mapping[str, fit.Config],
    folder: pathlib.Path | str | None = None,
    start: types.Params | None = None,
    mesh: Mesh | None = None,
    on_report: Callable[[fit.Report], None] = lambda report: None,
    on_validation: Callable[[fit.Report, types.Params], None] = lambda report, params: None,
    on_resume: Callable[[str, int, list[str]], None] = lambda stage, step, damaged: None,
    should_stop: Callable[[], bool] = lambda: False,
    should_save: Callable[[bool], bool] = lambda validated: validated,
    pace: Callable[[int], int] | None = None,
    policy: checkpoint.Policy = _DEFAULT,
    on_trouble: Callable[[str], None] = lambda line: None,
) -> tuple[types.Params, bool]:
    """Trains every stage that is not finished yet.

    Args:
      model: the model.
      key: of initialisation and training.
      data: with the splits `train` and `validation`.
      settings: stage -> how it is trained.
      folder: where checkpoints and finished stages are kept and found; None keeps nothing. Of several processes the first uses it.
      start: parameters that training begins from, as `load(..)`, `weights.load(..)[1]` or `starts.read(..)` returns them: all entries of a model
        of these shapes, or some. What a stage fits outright (`solve`) is fitted anew. None: `model.init`.
      mesh: devices; all of them where None.
      on_report: called after each compiled call.
      on_validation: called after each validation, with all parameters as they are then.
      on_resume: called with (stage, step, damaged) before a stage's first call: the step it continues at, 0 at its start, and what was
        passed over because it was damaged, one line each.
      should_stop: asked after each compiled call, or part of one.
      should_save: as in `fit.fit`.
      pace: as in `fit.fit`.
      policy: which checkpoints are kept, and whether a damaged one is an error.
      on_trouble: called with a line where a checkpoint could not be written; training goes on.

    Returns:
      params, and whether every stage ran to its end.

    Raises:
      ValueError: as `preconditions.check`; if what the folder holds belongs to another model, other data, other settings, another key, another start or
        other weights of the stages before; if `start` has other shapes.
      files.DamagedError: if something there is damaged and the policy is strict.
      checkpoint.SaveError: if the last state or a finished stage could not be written.
      fit.NonFiniteError: as `fit.fit`; the weights before that step are in the folder's `failed`.
    """
    preconditions.check(model, data, settings, mesh=mesh)
    folder = None if folder is None else pathlib.Path(folder)
    params = model.init(keys.stream(key, "init"))
    start = None if start is None else starts.check(model, start)
    given = frozenset(start or {})
    params |= start or {}
    digests: dict[str, str | None] = {}  # stage -> of its finished weights
    seen = {} if folder is None else _about_data(data) | starts.about(start)
    del start  # its memory is that of params, as long as they are
    common = {
        "mesh": mesh,
        "on_report": on_report,
        "on_validation": on_validation,
        "should_stop": should_stop,
        "should_save": should_save,
        "pace": pace,
    }
    for stage in model.stages:
        kept = None
        if folder is not None:
            about = about_stage(model, stage, key, settings, digests) | seen
            kept = _Kept(folder, stage, about=about, policy=policy, on_trouble=on_trouble)
        if kept is not None and (best := kept.finished(_owned(stage, params))) is not None:
            params = {**params, **best}
        else:
            on_resume(stage.name, *((0, []) if kept is None else kept.progress()))
            if stage.begin is not None and not given.issuperset(stage.trainable):
                params = stage.begin(params)
            params, complete = _run(stage, params, key, data, kept, settings.get(stage.name), **common)
            if not complete:
                return params, False
        digests[stage.name] = manifests.digest(_owned(stage, params))
    return params, True


class _Kept:
    """What a folder keeps of a stage: its checkpoints, its finished weights, and those before a step that was not finite."""

    def __init__(self, folder: pathlib.Path, stage: base.Stage, **options: Any):
        directory = lambda kind, **given: processes.shared(checkpoint.Directory(folder / kind / stage.name, **given))
        self.checkpoints = directory("checkpoints", **options)
        self._finished = directory("params", **options)
        self._failed = directory("failed")
        self._passed_over: list[str] = []

    def finished(self, like: types.Params) -> types.Params | None:
        """Returns the finished weights, None where there are none that are whole."""
        return self._whole(self._finished, lambda: self._finished.latest(like))

    def progress(self) -> tuple[int, list[str]]:
        """Returns the step of the newest checkpoint, 0 without one, and what was passed over because it was damaged."""
        return self._whole(self.checkpoints, self.checkpoints.newest) or 0, self._passed_over

    def finish(self, params: types.Params, step: int) -> None:
        """Writes finished weights."""
        self.checkpoints.settle()
        _write(self._finished, params, step)

    def fail(self, params: types.Params, step: int) -> None:
        """Writes the weights before a step that was not finite."""
        _write(self._failed, params, step)

    def _whole(self, directory: checkpoint.Directory, restore: Callable[[], Any]) -> Any | None:
        """Returns what `restore` finds, None where all is damaged: it is set aside then."""
        try:
            found = restore()
        except files.DamagedError:
            if directory.policy.strict:
                raise
            self._passed_over += [
                *directory.damaged,
                f"nothing in {directory.path} is whole, it is now {directory.set_aside()}",
            ]
            return None
        self._passed_over += directory.damaged
        return found


def _write(directory: checkpoint.Directory, params: types.Params, step: int) -> None:
    directory.save(params, step=step)
    directory.wait()


def _run(
    stage: base.Stage,
    params: types.Params,
    key: types.Array,
    data: Mapping[str, source.Source],
    kept: _Kept | None,
    config: fit.Config | None,
    **options: Any,
) -> tuple[types.Params, bool]:
    """Solves and trains a stage, given the options of `fit.fit`; returns the parameters, and whether it ran to its end."""
    if stage.solve is not None:
        batches = [data[split].batch() for split in ("train", "validation")]
        params = {**params, **stage.solve(params, keys.stream(key, f"{stage.name} solve"), *batches)}
    if stage.loss is not None:
        params, complete = _fit(stage, params, keys.stream(key, stage.name), data, kept, config=config, **options)
        if not complete:
            if kept is not None:
                kept.checkpoints.wait()
            return params, False
    if kept is not None:
        kept.finish(_owned(stage, params), 0 if stage.loss is None else config.num_steps)
    return params, True


def _fit(
    stage: base.Stage,
    params: types.Params,
    key: types.Array,
    data: Mapping[str, source.Source],
    kept: _Kept | None,
    **options: Any,
) -> tuple[types.Params, bool]:
    """Returns what `fit.fit` returns, given its options; weights before a step that was not finite are kept."""
    train_data, validation = (
        fit.prepare(stage, params, data[split].batch(), batch_size=_PREPARE_BATCH) for split in ("train", "validation")
    )
    checkpoints = None if kept is None else kept.checkpoints
    try:
        return fit.fit(stage, params, key, train_data, validation, checkpoints=checkpoints, **options)
    except fit.NonFiniteError as error:
        if kept is not None:
            kept.fail(_owned(stage, error.params), error.failed_step)
        raise


def about_stage(
    model: base.Model,
    stage: base.Stage,
    key: types.Array,
    settings: Mapping[str, fit.Config],
    digests: Mapping[str, str | None],
) -> dict[str, Any]:
    """Returns what a stage's checkpoints belong to beside the data, as JSON values.

    Args:
      model: whose stage it is.
      stage: the stage.
      key: of the whole training.
      settings: stage -> how it is trained.
      digests: stage -> the digest of its finished weights, of those that this one is trained on.
    """
    return {
        "key": key_words(key),
        "settings": configs.to_json(settings.get(stage.name)),
        **{f"weights.{name}": digests[name] for name in stage.needs if digests.get(name) is not None},
    } | _about_model(model, stage)


def _about_model(model: base.Model, stage: base.Stage) -> dict[str, Any]:
    return {
        "stage": stage.name,
        "model": base.settings_of(model.config, stage.name),
        "specs": {name: configs.to_json(spec.law) for name, spec in model.specs.items()},
    }


def _about_data(data: Mapping[str, source.Source]) -> dict[str, Any]:
    return {f"data.{split}": data[split].summary() for split in source.SPLITS if split in data}


def key_words(key: types.Array) -> list[int]:
    """Returns a key as numbers."""
    return [int(word) for word in np.ravel(jax.random.key_data(key))]


def load(model: base.Model, folder: pathlib.Path | str, *, data: Mapping[str, source.Source] | None = None) -> types.Params:
    """Returns the parameters of a model all of whose stages are finished, or those that `weights.save` wrote into the folder.

    Args:
      model: the model; settings that no stage depends on, as those of its chains, may be others than in training.
      folder: of `train` or `weights.save`.
      data: splits to be compared with those of the training, as far as a summary tells; None compares nothing. What `weights.save` wrote
        knows no data.

    Raises:
      ValueError: if a stage is not finished, a file is damaged, or it belongs to another model or other data.
    """
    if weights.found(folder):
        return weights.read(model, folder)
    owned = {name for stage in model.stages for name in stage.trainable}
    init = lambda key: {name: value for name, value in model.init(key).items() if name not in owned}
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    like = lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device)
    params = jax.tree.map(like, jax.eval_shape(model.init, jax.random.key(0))) | compiling.once(init)(jax.random.key(0))
    seen = _about_data(data or {})
    for stage in model.stages:
        about = _about_model(model, stage) | seen
        best = checkpoint.Directory(finished(pathlib.Path(folder), stage).path, about=about).latest(_owned(stage, params))
        if best is None:
            raise ValueError(f"Expected a finished stage {stage.name!r} in {folder}, got none: resume its training first.")
        params = {**params, **best}
    return params


def check_fits(model: base.Model, folder: pathlib.Path, name: str, data: Mapping[str, source.Source]) -> None:
    """Checks that a finished stage in a folder is what this model's stage of that name would be on these data.

    Raises:
      ValueError: if it belongs to another model or other data, or its leaves differ; the first one is named.
    """
    params = jax.eval_shape(model.init, jax.random.key(0))
    stage = next(stage for stage in model.stages if stage.name == name)
    about = _about_model(model, stage) | _about_data(data)
    checkpoint.Directory(finished(folder, stage).path, about=about).check(_owned(stage, params))


def check_data(model: base.Model, folder: pathlib.Path, data: Mapping[str, source.Source]) -> None:
    """Checks that what a folder holds of the model's stages was trained on these data, as far as a summary tells.

    Raises:
      ValueError: if it was trained on others.
    """
    about = _about_data(data)
    for stage in model.stages:
        for kind in ("params", "checkpoints"):
            checkpoint.Directory(folder / kind / stage.name, about=about).check_about()


def finished(folder: pathlib.Path, stage: base.Stage) -> checkpoint.Directory:
    """Returns where the best weights of a finished stage are."""
    return checkpoint.Directory(folder / "params" / stage.name)


def _owned(stage: base.Stage, params: types.Params) -> types.Params:
    return {name: params[name] for name in stage.trainable}
