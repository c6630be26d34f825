"""Trains all stages of an experiment.

    jnf-jax train polydigits/jnf --workdir runs/demo [--quick] [--finetune shared/a] [--log tensorboard] [any field of the config]

The same command continues a run that was ended, bit for bit. SIGTERM and Ctrl-C end it with its state saved and exit code 130.
"""

import argparse
import functools
import pathlib
import shutil
import sys
from collections.abc import Sequence

import jax
from jax.sharding import Mesh

from experiments import cluster, experiment, reporter, settings, stopping
from jnf_jax import keys, types
from jnf_jax.data import source
from jnf_jax.models import base
from jnf_jax.training import checkpoint, files, loggers, processes, stages, starts, weights, writers

_FAR = 20.0  # from 0, what values of unbounded reals should not be


def main() -> int:
    """Runs the script; returns its exit code."""
    parser = argparse.ArgumentParser(prog="jnf-jax train", add_help=False, allow_abbrev=False, description=__doc__)
    parser.add_argument("experiment", nargs="?", help="a name of `jnf-jax list`, or the path of a file that exports CONFIG")
    parser.add_argument("--workdir", type=pathlib.Path, help="folder of the run")
    parser.add_argument("--quick", action="store_true", help="the experiment's size for two CPU cores, where it has one")
    parser.add_argument("--overwrite", action="store_true", help="remove the run in the folder and start again")
    parser.add_argument("--restore", choices=("newest", "strict"), default="newest",
                        help="newest: damaged checkpoints are passed over; strict: they are an error")  # fmt: skip
    parser.add_argument(
        "--checkpoint-minutes", type=float, help="minutes between checkpoints; at every validation where not given"
    )
    parser.add_argument("--keep-every", type=int, help="keep the checkpoints at multiples of so many steps as well")
    parser.add_argument("--watchdog", type=float, help="end the process where it does not move for so many seconds")
    parser.add_argument("--init-from", type=pathlib.Path, help="folder of a run whose finished stages are taken over")
    parser.add_argument("--init-stages", nargs="+", help="the stages to take over; the first one where not given")
    parser.add_argument(
        "--finetune", type=pathlib.Path, help="folder of shared weights, or of a run, that training starts from"
    )
    parser.add_argument("--log", nargs="+", default=[], choices=list(loggers.LOGGERS), help="loggers, beside metrics.jsonl")
    cluster.add_flags(parser)
    arguments, overrides = parser.parse_known_args()
    if arguments.experiment is None:
        parser.print_help()
        print("\nName an experiment to see its settings: jnf-jax train polydigits/jnf --help")
        return 0 if {"-h", "--help", "--help-all"} & set(overrides) else 2
    wants_help = {"-h", "--help", "--help-all"} & set(overrides)
    if not wants_help:
        cluster.initialize(arguments)
    try:
        config = experiment.find(arguments.experiment, quick=arguments.quick)
    except ValueError as error:
        if sys.argv[1] == arguments.experiment:
            raise
        raise ValueError(f"{error} The experiment comes first, its settings after it.") from error
    if wants_help:
        parser.print_help()
    if wants_help and "--help-all" not in overrides:
        settings.show(config)
        return 0
    overrides = ["--help" if flag == "--help-all" else flag for flag in overrides]
    config = experiment.parse(config, overrides, program=f"{parser.prog} {arguments.experiment}")
    if arguments.workdir is None:
        raise ValueError("Expected the run's folder, got no --workdir.")
    if arguments.init_stages and not arguments.init_from:
        raise ValueError("Expected --init-from, the run whose stages --init-stages names, got none.")
    if arguments.checkpoint_minutes is not None and not arguments.checkpoint_minutes > 0:
        raise ValueError(f"Expected --checkpoint-minutes of more than 0, got {arguments.checkpoint_minutes}.")
    mesh = cluster.mesh(arguments)
    config = cluster.with_batch(config, mesh, arguments)
    again = "the same command without --overwrite continues" if arguments.overwrite else "the same command continues"
    stop = stopping.Stop(watchdog=arguments.watchdog, continuing=again)
    policy = checkpoint.Policy(keep_every=arguments.keep_every, strict=arguments.restore == "strict")
    with stop.listening(), cluster.lease(arguments.workdir):
        return train(
            config,
            arguments.workdir,
            overwrite=arguments.overwrite,
            taken=(arguments.init_from, arguments.init_stages) if arguments.init_from else None,
            finetuned=arguments.finetune,
            stop=stop,
            policy=policy,
            minutes=arguments.checkpoint_minutes,
            mesh=mesh,
            log=arguments.log,
        )


def train(
    config: experiment.Config,
    workdir: pathlib.Path,
    *,
    overwrite: bool = False,
    taken: tuple[pathlib.Path, list[str] | None] | None = None,
    finetuned: pathlib.Path | None = None,
    stop: stopping.Stop | None = None,
    policy: checkpoint.Policy | None = None,
    minutes: float | None = None,
    mesh: Mesh | None = None,
    log: Sequence[str] = (),
) -> int:
    """Trains in `workdir`, or continues there; returns the exit code.

    Args:
      config: the experiment.
      workdir: folder of the run.
      overwrite: whether a run that is there is removed.
      taken: another run's folder and the names of its stages to take over.
      finetuned: folder of shared weights, or of another run, whose parameters training starts from; the run keeps them.
      stop: asked whether to stop; None: no signal is caught.
      policy: of checkpoints.
      minutes: between checkpoints; None: at every validation.
      mesh: devices; all of them where None.
      log: names of loggers.
    """
    stop, policy = stop or stopping.Stop(), policy or checkpoint.Policy()
    loggers.check(log)
    processes.from_first(lambda: _check_folder(workdir, config, overwrite=overwrite))
    model, data = experiment.build(config)
    stages.check(model, data, config.training, mesh=mesh)
    key = jax.random.key(config.seed)
    begun_before = not overwrite and (workdir / "config.json").exists()
    processes.from_first(
        lambda: _begin(config, model, data, key, workdir, overwrite=overwrite, taken=taken, finetuned=finetuned)
    )
    due = None if minutes is None else writers.Every(minutes)

    @functools.cache
    def preview(stage: str):
        from experiments import previews  # here, since it brings matplotlib and only loggers need it

        return previews.make(model, data["validation"], stage, keys.stream(key, "previews"))

    with writers.Progress() as progress:
        told = reporter.Reporter(workdir, config, log, progress, preview, continued=begun_before)

        def on_resume(*where):
            stop.at_rest()
            told.on_resume(*where)

        for line in _far_from_zero(data["train"]) if processes.is_first() else ():
            told.warn(line)
        try:
            _, complete = stages.train(
                model,
                key,
                data,
                settings=config.training,
                folder=workdir,
                start=_start_of(model, workdir),
                mesh=mesh,
                on_report=told.on_report,
                on_validation=told.on_validation,
                on_resume=on_resume,
                should_stop=stop.asked,
                should_save=(lambda _: processes.any_process(due())) if due else (lambda validated: validated),
                pace=writers.Pace() if jax.process_count() == 1 else None,
                policy=policy,
                on_trouble=lambda line: told.warn(f"not saved, training goes on: {line}"),
            )
        finally:
            stop.done()
            told.close()
    if not complete:
        print(f"stopped by a signal, the state is saved; {stop.continuing}", file=sys.stderr)
        return stopping.INTERRUPTED
    if processes.is_first():
        print(f"trained: {workdir}")
    return 0


def _far_from_zero(data: source.Source) -> list[str]:
    """Returns a warning for each modality of unbounded reals that nobody standardised."""
    lines = []
    for name, moments in data.summary().items():
        spec = data.specs.get(name)
        if spec is None or not spec.may_be_standardised:
            continue
        if abs(moments.get("mean", 0)) + moments.get("deviation", 0) > _FAR:
            lines.append(
                f"values of {name!r} are far from 0 (mean {moments['mean']:.3g}, standard deviation {moments['deviation']:.3g}): "
                "networks learn them badly; standardise them, or read them by `tables.Config`, which does."
            )
    return lines


def _check_folder(workdir: pathlib.Path, config: experiment.Config, *, overwrite: bool) -> None:
    """Raises a ValueError where a run cannot be trained in a folder; as `experiment.check_free` where nothing is overwritten."""
    if weights.found(workdir):
        raise ValueError(
            f"Expected a --workdir without shared weights, which would be read in place of those trained, got {workdir}."
        )
    if not overwrite:
        experiment.check_free(workdir, config)


def _begin(
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
        _check_taken(config, model, data, *taken, None if overwrite else workdir)
    start = None if finetuned is None else _start_given(model, finetuned, workdir, overwrite=overwrite)
    if overwrite:
        experiment.remove(workdir)
    else:
        stages.check_data(model, workdir, data)  # the config may name another place
    experiment.create(workdir, config)
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
    if _digests(kept) is not None and checkpoint.digest(kept.latest(start)) != checkpoint.digest(start):
        raise ValueError(f"Expected the weights that the run in {workdir} began with, got others: choose another --workdir.")
    return start


def _start_of(model: base.Model, workdir: pathlib.Path, *, alone: bool = False) -> types.Params | None:
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


def _check_taken(
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
    theirs = experiment.load(other)
    taken = _stages(model, names)
    for stage in taken:
        name = stage.name
        if absent := set(stage.needs) - {s.name for s in taken}:
            raise ValueError(
                f"Expected {sorted(absent)} to be taken too, on which stage {name!r} was trained, got {names} alone."
            )
        if differing := experiment.stage_differences(config, theirs, name):
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
    start = starts.about(_start_of(model, workdir, alone=True))
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


if __name__ == "__main__":
    experiment.main(main)
