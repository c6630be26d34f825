"""Trains and measures the models of a data set, seed by seed; the variants of a seed share its joint stage.

    jnf-jax sweep extended_polymnist --seeds 0 1 --quick [--results experiments/results]

`--on ray` makes every run a task of a Ray cluster, begun again where its worker is lost. Each run is a process of its own in `runs/<data set>/<model>/seed_<n>`. What is finished is not done again, so a sweep that was stopped goes on where it was. `--results`
keeps a copy of every run's config and evaluation.
"""

import contextlib
import dataclasses
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Annotated, Literal

import tyro

from experiments import evaluate, experiment, figures, listing, on_ray, parts, run_folder, stopping

MODELS = ("jnf", "jnf_cl", "jnf_dcca")
_SHARED = ("--init-stages", "joint")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Trains and measures the models of a data set.

    Attributes:
      data: the data set, or the path of a folder of experiment files, one a model.
      models: its experiments; the others take their joint stage from the first where it is the same. None: JNF and its shared forms, or every
        file of a folder.
      seeds: one run of every model for each.
      quick: the experiments' size for two CPU cores.
      runs: where the runs go.
      results: where copies of configs and evaluations go.
      evaluate: further arguments of `evaluate`, in one text and with an equals sign: `--evaluate="--num-samples 8"`.
      on: `here`, run after run; `ray`, a task of a Ray cluster for each run.
      cpus: cores of a Ray task.
      gpus: accelerators of a Ray task.
    """

    data: Annotated[str, tyro.conf.Positional]
    models: tuple[str, ...] | None = None
    seeds: tuple[int, ...] = (0,)
    quick: bool = False
    runs: pathlib.Path = pathlib.Path("runs")
    results: pathlib.Path | None = None
    evaluate: str = "--num-observations 1000 --num-samples 4"
    on: Literal["here", "ray"] = "here"
    cpus: float = 1
    gpus: float = 0

    def __post_init__(self):
        if self.models is None:
            object.__setattr__(self, "models", listing.chosen(self.data, MODELS))


def main() -> int:
    """Runs the script; returns its exit code."""
    arguments = tyro.cli(Arguments, prog="jnf-jax sweep")
    check(arguments)
    for _ in finish_all(arguments):
        pass
    return 0


def check(arguments: Arguments) -> None:
    """Checks, before the first run begins, what all of them are given.

    Raises:
      ValueError: if there is no run to do, or no such experiment.
      SystemExit: if `evaluate` does not take its arguments, which it says itself.
    """
    if not arguments.models or not arguments.seeds:
        raise ValueError(f"Expected a model and a seed, got models {arguments.models} and seeds {arguments.seeds}.")
    if pathlib.Path(arguments.data).is_file():
        raise ValueError(f"Expected a data set, or a folder of experiment files, one a model, got the file {arguments.data!r}.")
    for model in arguments.models:
        experiment.find(listing.of(arguments.data, model), quick=arguments.quick)
    asked = parse_evaluate(arguments.evaluate)
    if asked.split != "test" or asked.chains_only:
        raise ValueError(f"Expected --evaluate with the whole test split, got {arguments.evaluate!r}.")


def parse_evaluate(*words: str) -> evaluate.Arguments:
    """Returns what texts of arguments ask of `evaluate`; ends the program, as that would, if it does not take them."""
    split = [word for text in words for word in text.split()]
    return tyro.cli(evaluate.Arguments, args=["--workdir", "any", *split], prog="jnf-jax evaluate")


def finish_all(arguments: Arguments) -> Iterator[pathlib.Path]:
    """Does what is still to be done for all runs; yields the folder of each that is finished."""
    if arguments.on == "here":
        yield from (finish(arguments, model, seed) for seed in arguments.seeds for model in arguments.models)
        return
    absolute = {name: None if (path := getattr(arguments, name)) is None else path.resolve() for name in ("runs", "results")}
    arguments = dataclasses.replace(arguments, **absolute)
    first, *others = arguments.models
    for models in ((first,), others):  # the others take the first one's joint stage
        todo = [(arguments, model, seed, os.getcwd()) for seed in arguments.seeds for model in models]
        yield from on_ray.run(_finish_in, todo, cpus=arguments.cpus, gpus=arguments.gpus)


def _finish_in(arguments: Arguments, model: str, seed: int, folder: str) -> pathlib.Path:
    os.chdir(folder)
    return finish(arguments, model, seed)


def finish(arguments: Arguments, model: str, seed: int) -> pathlib.Path:
    """Does what is still to be done for one run; returns its folder."""
    folder = arguments.runs / listing.called(arguments.data) / model / f"seed_{seed}"
    shared = arguments.runs / listing.called(arguments.data) / arguments.models[0] / f"seed_{seed}"
    run(*commands(arguments, model, seed, folder, shared), with_parent=arguments.on == "ray")
    if arguments.results is not None:
        keep(folder, arguments.results / listing.called(arguments.data) / model / f"seed_{seed}")
    return folder


def commands(arguments: Arguments, model: str, seed: int, folder: pathlib.Path, shared: pathlib.Path) -> list[list[str]]:
    """Returns what is still to be done for one run."""
    train = ["train", listing.of(arguments.data, model), "--workdir", str(folder), "--seed", str(seed)]
    train += ["--quick"] if arguments.quick else []
    first = arguments.models[0]
    found = [experiment.find(listing.of(arguments.data, m), quick=arguments.quick) for m in (first, model)]
    has_its_own = (folder / "params" / "joint").exists() and not (folder / "taken.json").exists()
    same = all("joint" in c.training for c in found) and not run_folder.stage_differences(*found, "joint")
    if model != first and same and not has_its_own:
        train += ["--init-from", str(shared), *_SHARED]
    measure = ["evaluate", "--workdir", str(folder), *arguments.evaluate.split()]
    draw = ["figures", "--workdir", str(folder)]
    measured = evaluate.answers(parts.known(folder / evaluate.FILES["test"]), parse_evaluate(arguments.evaluate))
    picture, result = folder / "figures" / f"{figures.LAST}.png", folder / evaluate.FILES["test"]
    drawn = measured and picture.exists() and picture.stat().st_mtime >= result.stat().st_mtime
    return [train, *([] if measured else [measure]), *([] if drawn else [draw])]


def keep(folder: pathlib.Path, target: pathlib.Path) -> None:
    """Copies what a table is made of."""
    target.mkdir(parents=True, exist_ok=True)
    for name in ("config.json", evaluate.FILES["test"]):
        shutil.copyfile(folder / name, target / name)


def run(*commands: list[str], with_parent: bool = False) -> None:
    """Runs commands of `jnf-jax`, each a process of its own.

    SIGTERM is passed on to the one that runs, which saves its state; a terminal sends Ctrl-C to it as well. This process ends after it.

    Args:
      *commands: verb and arguments.
      with_parent: whether they end when this process does, however it ends.

    Raises:
      subprocess.CalledProcessError: if one fails or is stopped.
    """
    begin = on_ray.end_with_parent if with_parent else None
    for command in commands:
        print(" ".join(command), flush=True)
        with _passing_signals_to([sys.executable, "-m", "jnf_jax_experiments", *command], begin) as (process, received):
            code = process.wait()
        if received or code:
            raise subprocess.CalledProcessError(stopping.INTERRUPTED if received else code, command)


@contextlib.contextmanager
def _passing_signals_to(command: list[str], begin: Callable[[], None] | None) -> Iterator[tuple[subprocess.Popen, list[int]]]:
    """Starts a process; yields it and the signals that come. SIGTERM is passed on, and any signal after the first."""
    started: list[subprocess.Popen] = []
    received: list[int] = []

    def pass_on():
        if signal.SIGTERM in received or len(received) > 1:
            for process in started:
                process.terminate()

    def receive(number, frame):
        del frame
        received.append(number)
        pass_on()

    def start():
        started.append(subprocess.Popen(command, preexec_fn=begin))
        pass_on()  # of what came meanwhile
        return started[0], received

    if threading.current_thread() is not threading.main_thread():  # which alone can listen
        yield start()
        return

    before = {number: signal.signal(number, receive) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield start()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


if __name__ == "__main__":
    experiment.main(main)
