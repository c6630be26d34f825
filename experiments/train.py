"""Trains all stages of an experiment.

    jnf-jax train polydigits/jnf --workdir runs/demo [--quick] [--resume] [--init-from runs/other] [--log tensorboard] [any field of the config]

SIGTERM and Ctrl-C end the run after the current call with its state saved; `--resume` continues it, bit for bit.
"""

import argparse
import functools
import pathlib
import shutil
import signal
import sys
from collections.abc import Sequence

import jax

from experiments import experiment, previews, settings
from jnf_jax import configs, keys, types
from jnf_jax.models import base
from jnf_jax.training import checkpoint, fit, loggers, stages, writers

_INTERRUPTED = 130  # exit code


def main() -> int:
    """Runs the script; returns its exit code."""
    parser = argparse.ArgumentParser(prog="jnf-jax train", add_help=False, description=__doc__)
    parser.add_argument("experiment", nargs="?", help="a name of `jnf-jax list`, or the path of a file that exports CONFIG")
    parser.add_argument("--workdir", type=pathlib.Path, help="folder of the run")
    parser.add_argument("--quick", action="store_true", help="the experiment's size for two CPU cores, where it has one")
    parser.add_argument("--resume", action="store_true", help="continue the run in the folder, if there is one")
    parser.add_argument("--init-from", type=pathlib.Path, help="folder of a run whose finished stages are taken over")
    parser.add_argument("--init-stages", nargs="+", help="the stages to take over; the first one where not given")
    parser.add_argument("--log", nargs="+", default=[], choices=list(loggers.LOGGERS), help="loggers, beside metrics.jsonl")
    arguments, overrides = parser.parse_known_args()
    if arguments.experiment is None:
        parser.print_help()
        return 0 if {"-h", "--help", "--help-all"} & set(overrides) else 2
    wants_help = {"-h", "--help", "--help-all"} & set(overrides)
    config = experiment.find(arguments.experiment, quick=arguments.quick)
    if wants_help:
        parser.print_help()
    if wants_help and "--help-all" not in overrides:
        settings.show(config)
        return 0
    overrides = ["--help" if flag == "--help-all" else flag for flag in overrides]
    config = experiment.parse(config, overrides, program=f"{parser.prog} {arguments.experiment}")
    if arguments.workdir is None:
        raise ValueError("Expected the run's folder, got no --workdir.")
    with experiment.lease(arguments.workdir):
        taken = (arguments.init_from, arguments.init_stages) if arguments.init_from else None
        return train(config, arguments.workdir, resume=arguments.resume, taken=taken, log=arguments.log)


def train(
    config: experiment.Config,
    workdir: pathlib.Path,
    *,
    resume: bool,
    taken: tuple[pathlib.Path, list[str] | None] | None = None,
    log: Sequence[str] = (),
) -> int:
    """Trains in `workdir`, on top of another run's stages `(folder, names)` if given, with the loggers named; returns the exit code."""
    experiment.check_free(workdir, config, resume=resume)
    loggers.check(log)
    model, data = experiment.build(config)
    stages.check(model, data, config.training)
    if taken is not None:
        _check_taken(config, model, *taken, workdir)
    experiment.create(workdir, config)
    if taken is not None:
        _take_over(model, *taken, workdir)
    stop = _catch_signals()
    metrics = writers.MetricsFile(workdir / "metrics.jsonl")
    started = loggers.start(log, workdir, configs.to_json(config))

    @functools.cache
    def preview(stage: str):
        return previews.make(model, data["validation"], stage, keys.stream(jax.random.key(config.seed), "previews"))

    with writers.Progress() as progress:

        def on_report(report: fit.Report):
            metrics.write(report)
            for logger in started:
                logger.write(report)
            progress.update(f"stage {report.stage}", report.step, report.num_steps, f"loss {report.loss:.4g}")

        def on_validation(report: fit.Report, params: types.Params):
            if started and (draw := preview(report.stage)) is not None:
                image = draw(params)
                for logger in started:
                    logger.picture(report.stage, report.step, image)

        def on_resume(stage: str, step: int, damaged: list[str]):
            metrics.rewind(stage, step)
            for logger in started:
                logger.begin(stage, step)
            for line in damaged:
                progress.say(f"warning: checkpoint passed over, {line}")
            if step:
                progress.say(f"stage {stage}: continuing at step {step}")

        try:
            _, complete = stages.train(
                model,
                jax.random.key(config.seed),
                data,
                settings=config.training,
                folder=workdir,
                on_report=on_report,
                on_validation=on_validation,
                on_resume=on_resume,
                should_stop=lambda: bool(stop),
            )
        finally:
            metrics.close()
            for logger in started:
                logger.close()
    if not complete:
        print(f"stopped by signal {stop[0]}; continue with --resume", file=sys.stderr)
        return _INTERRUPTED
    print(f"trained: {workdir}")
    return 0


def _catch_signals() -> list[int]:
    """Returns a list that the first SIGTERM or SIGINT is put into; a second one ends the process at once."""
    received: list[int] = []

    def handler(number, frame):
        del frame
        received.append(number)
        signal.signal(number, signal.SIG_DFL)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, handler)
    return received


def _check_taken(
    config: experiment.Config, model: base.Model, other: pathlib.Path, names: list[str] | None, workdir: pathlib.Path
) -> None:
    """Checks that another run's stages are what this experiment's would be, and that they belong together.

    Raises:
      ValueError: if the model has no such stage; the other run has not finished it, or trained it with other settings, or its files are
        damaged; it was trained on a stage that is not taken too; or this run has one of its own.
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
        stages.check_fits(model, other, name)
        if stages.finished(workdir, stage).digests() not in (None, digests):
            raise ValueError(f"Expected no stage {name!r} yet in {workdir}, or that of {other}, got another.")


def _take_over(model: base.Model, other: pathlib.Path, names: list[str] | None, workdir: pathlib.Path) -> None:
    """Copies finished stages of another run, as far as they are not here already."""
    taken = _stages(model, names)
    checkpoint.write_json(workdir / "taken.json", {"from": str(other), "stages": [stage.name for stage in taken]})
    for stage in taken:
        if stages.finished(workdir, stage).newest() is not None:
            continue
        target = workdir / "params" / stage.name
        target.parent.mkdir(parents=True, exist_ok=True)
        unfinished = target.with_name(target.name + ".tmp")
        shutil.rmtree(unfinished, ignore_errors=True)
        shutil.copytree(other / "params" / stage.name, unfinished)
        shutil.rmtree(target, ignore_errors=True)  # what a killed process left
        unfinished.rename(target)


def _stages(model: base.Model, names: list[str] | None) -> list[base.Stage]:
    known = [stage.name for stage in model.stages]
    if unknown := set(names or []) - set(known):
        raise ValueError(f"Expected stages of {known}, got {sorted(unknown)}.")
    return [stage for stage in model.stages if stage.name in (names or known[:1])]


if __name__ == "__main__":
    experiment.main(main)
