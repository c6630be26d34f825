"""Trains all stages of an experiment.

    jnf-jax train polydigits/jnf --workdir runs/demo [--quick] [--finetune shared/a] [--log tensorboard] [any field of the config]

The same command continues a run that was ended, bit for bit. SIGTERM and Ctrl-C end it with its state saved and exit code 130.
"""

import argparse
import functools
import pathlib
import sys
from collections.abc import Sequence

import jax
from jax.sharding import Mesh

from experiments import beginning, cluster, experiment, reporter, settings, stopping
from jnf_jax import keys
from jnf_jax.data import source
from jnf_jax.training import checkpoint, loggers, preconditions, processes, stages, writers

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
    processes.from_first(lambda: beginning.check_folder(workdir, config, overwrite=overwrite))
    model, data = experiment.build(config)
    preconditions.check(model, data, config.training, mesh=mesh)
    key = jax.random.key(config.seed)
    begun_before = not overwrite and (workdir / "config.json").exists()
    processes.from_first(
        lambda: beginning.begin(config, model, data, key, workdir, overwrite=overwrite, taken=taken, finetuned=finetuned)
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
                start=beginning.start_of(model, workdir),
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


if __name__ == "__main__":
    experiment.main(main)
