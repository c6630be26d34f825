"""What a run's folder holds before its training: its config, what training starts from, and stages that another run has trained."""

import pathlib
import shutil

from experiments import experiment, run_folder
from jnf_jax import types
from jnf_jax.models import base
from jnf_jax.training import checkpoint, files, manifests, processes, stages, starts, weights


def check_folder(workdir: pathlib.Path, config: experiment.Config, *, overwrite: bool) -> None:
    """Raises a ValueError where a run cannot be trained in a folder; as `run_folder.check_free` where nothing is overwritten."""
    if weights.found(workdir):
        raise ValueError(
            f"Expected a --workdir without shared weights, which would be read in place of those trained, got {workdir}."
        )
    if not overwrite:
        run_folder.check_free(workdir, config)


def begin(
    config: experiment.Config,
    model: base.Model,
    data: experiment.Splits,
    key: types.Array,
    workdir: pathlib.Path,
    *,
    overwrite: bool,
    taken: tuple[pathlib.Path, list[str] | None] | None,
    finetuned: pathlib.Path | None,
) -> None:
    """Writes what a run's folder holds before training: its config, what training starts from, and the stages that are taken over."""
    if taken is not None and not overwrite and not taken[0].exists() and _is_taken(model, *taken, workdir):
        taken = None  # all that is to be taken is here
    if taken is not None:
        if overwrite and taken[0].resolve() == workdir.resolve():
            raise ValueError(f"Expected --init-from another folder than {workdir}, which --overwrite empties.")
        check_taken(config, model, data, *taken, None if overwrite else workdir)
    start = None if finetuned is None else _start_given(model, finetuned, workdir, overwrite=overwrite)
    if overwrite:
        run_folder.remove(workdir)
    else:
        stages.check_data(model, workdir, data)  # the config may name another place
    run_folder.create(workdir, config)
    if start is not None and _digests(kept := _kept_start(workdir)) is None:
        kept.save(start, step=0)
        kept.wait()
    if taken is not None:
        _take_over(model, key, *taken, workdir)


def _kept_start(workdir: pathlib.Path) -> checkpoint.Directory:
    return checkpoint.Directory(workdir / "start")


def _start_given(model: base.Model, folder: pathlib.Path, workdir: pathlib.Path, *, overwrite: bool) -> types.Params | None:
    """Returns what `--finetune` names, None where that is gone and the run keeps it.

    Raises:
      ValueError: as `starts.read`; if the run was begun from other parameters, or from none, or would be removed before it is read.
    """
    if overwrite and folder.resolve() == workdir.resolve():
        raise ValueError(f"Expected --finetune from another folder than {workdir}, which --overwrite empties.")
    kept = _kept_start(workdir)
    if not overwrite and not folder.exists() and _digests(kept) is not None:
        return None
    start = starts.read(model, folder)
    if overwrite:
        return start
    if not kept.path.exists() and any((workdir / name).is_dir() for name in ("checkpoints", "params")):
        raise ValueError(
            f"Expected --finetune at the first command of a run, got a run without {kept.path}: choose another --workdir."
        )
    starts.check_about(model, workdir, start)
    if _digests(kept) is not None and manifests.digest(kept.latest(start)) != manifests.digest(start):
        raise ValueError(f"Expected the weights that the run in {workdir} began with, got others: choose another --workdir.")
    return start


def start_of(model: base.Model, workdir: pathlib.Path, *, alone: bool = False) -> types.Params | None:
    """Returns the parameters that a run keeps as those it starts from; None where it starts from random ones.

    Args:
      model: the model.
      workdir: folder of the run.
      alone: whether the first process asks for itself; otherwise all ask together.

    Raises:
      ValueError: if it keeps some, and they are damaged.
    """
    kept = _kept_start(workdir)
    if not (kept.path.exists() if alone else processes.from_first(kept.path.exists)):
        return None
    if (start := (kept if alone else processes.shared(kept)).latest(starts.blank(model))) is None:
        raise ValueError(f"Expected whole weights in {kept.path}, got a part: name them by --finetune again.")
    return start


def check_taken(
    config: experiment.Config,
    model: base.Model,
    data: experiment.Splits,
    other: pathlib.Path,
    names: list[str] | None,
    workdir: pathlib.Path | None,
) -> None:
    """Checks that another run's stages are what this experiment's would be, and that they belong together.

    Raises:
      ValueError: if the model has no such stage; the other run has not finished it, or trained it with other settings or on other data, or its
        files are damaged; it was trained on a stage that is not taken too; or this run has one of its own.
    """
    theirs = run_folder.load(other)
    taken = _stages(model, names)
    for stage in taken:
        name = stage.name
        if absent := set(stage.needs) - {s.name for s in taken}:
            raise ValueError(
                f"Expected {sorted(absent)} to be taken too, on which stage {name!r} was trained, got {names} alone."
            )
        if differing := run_folder.stage_differences(config, theirs, name):
            raise ValueError(f"Expected a stage {name!r} of this experiment's settings in {other}, got others of {differing}.")
        if (digests := stages.finished(other, stage).digests()) is None:
            raise ValueError(f"Expected a finished stage {name!r} in {other}, got none.")
        stages.check_fits(model, other, name, data)
        if workdir is not None and _digests(stages.finished(workdir, stage)) not in (None, digests):
            raise ValueError(f"Expected no stage {name!r} yet in {workdir}, or that of {other}, got another.")


def _is_taken(model: base.Model, other: pathlib.Path, names: list[str] | None, workdir: pathlib.Path) -> bool:
    """Returns whether a run has all these stages of another one, and whole."""
    try:
        same = files.read_object(workdir / "taken.json").get("from") == str(other.resolve())
    except files.DamagedError:
        return False
    return same and all(_digests(stages.finished(workdir, stage)) is not None for stage in _stages(model, names))


def _digests(directory: checkpoint.Directory) -> dict[str, str] | None:
    """Returns the digests of what a directory holds, None where it holds nothing whole."""
    try:
        return directory.digests()
    except files.DamagedError:
        return None


def _take_over(
    model: base.Model, key: types.Array, other: pathlib.Path, names: list[str] | None, workdir: pathlib.Path
) -> None:
    """Copies finished stages of another run, as far as they are not here already, and makes them those of this run's key."""
    taken = _stages(model, names)
    start = starts.about(start_of(model, workdir, alone=True))
    files.write_json(workdir / "taken.json", {"from": str(other.resolve()), "stages": [stage.name for stage in taken]})
    for stage in taken:
        here = stages.finished(workdir, stage)
        if _digests(here) is not None:
            continue
        if here.path.exists():  # damaged
            here.set_aside()
        target = workdir / "params" / stage.name
        target.parent.mkdir(parents=True, exist_ok=True)
        unfinished = target.with_name(target.name + ".tmp")
        shutil.rmtree(unfinished, ignore_errors=True)
        shutil.copytree(other / "params" / stage.name, unfinished)
        shutil.rmtree(target, ignore_errors=True)  # what a killed process left
        checkpoint.Directory(unfinished).adopt({"key": stages.key_words(key), **start})
        unfinished.rename(target)


def _stages(model: base.Model, names: list[str] | None) -> list[base.Stage]:
    known = [stage.name for stage in model.stages]
    if unknown := set(names or []) - set(known):
        raise ValueError(f"Expected stages of {known}, got {sorted(unknown)}.")
    return [stage for stage in model.stages if stage.name in (names or known[:1])]
