"""Chooses beta and the learning rate of models on validation data, every model from the same grid.

    jnf-jax grid polydigits --models jnf mvae [--betas 1 2.5 5] [--rates 0.001 0.002] [--share 0.5] [--results experiments/results]

Each point is a run in `runs/<data set>/grid/<model>/beta_<beta>_rate_<rate>`, of a share of the experiment's steps; the rate is that of its stage with the
decoders. `grid.json` beside them holds what was measured at every point, and the best one: there coherence, averaged over the sizes of the
observed subsets, is largest. What is finished is not done again. A point whose loss stops being finite is noted as failed.
"""

import dataclasses
import itertools
import math
import pathlib
import subprocess
from typing import Annotated, Any

import rich.console
import rich.table
import tyro

from experiments import evaluate, experiment, listing, parts, stopping, sweep
from jnf_jax.training import files

_SPLIT = "validation"

MODELS = ("jnf", "jmvae", "mvae", "mmvae", "mopoe", "mvtcae", "mmvae_plus")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Chooses beta and the learning rate of models on validation data.

    Attributes:
      data: the data set, or the path of a folder of experiment files, one a model.
      models: its experiments; None: JNF, JMVAE, MVAE, MMVAE, MoPoE, MVTCAE and MMVAE+, or every file of a folder.
      betas: weights of the KL term.
      rates: learning rates of the stage that trains the decoders.
      share: of the experiment's steps in every stage.
      seed: of all runs.
      quick: the experiments' size for two CPU cores.
      runs: where the runs go.
      results: where copies of grids go.
      evaluate: further arguments of `evaluate`, in one text and with an equals sign.
    """

    data: Annotated[str, tyro.conf.Positional]
    models: tuple[str, ...] | None = None
    betas: tuple[float, ...] = (1.0, 2.5, 5.0)
    rates: tuple[float, ...] = (1e-3, 2e-3)
    share: float = 0.5
    seed: int = 0
    quick: bool = False
    runs: pathlib.Path = pathlib.Path("runs")
    results: pathlib.Path | None = None
    evaluate: str = (
        "--num-observations 300 --num-samples 2 --num-scored 0 --num-codes 0 --num-likelihood 50 --num-importance 100"
    )

    def __post_init__(self):
        if self.models is None:
            object.__setattr__(self, "models", listing.chosen(self.data, MODELS))


def main() -> int:
    """Runs the script; returns its exit code."""
    arguments = tyro.cli(Arguments, prog="jnf-jax grid")
    if not arguments.models:
        raise ValueError(f"Expected a model, got none for {arguments.data!r}.")
    if not 0 < arguments.share <= 1:
        raise ValueError(f"Expected a --share in (0, 1], got {arguments.share}.")
    todo = {model: points(arguments, model) for model in arguments.models}  # a wrong name ends it before it begins
    _check_labels(arguments)
    for model, commands_of in todo.items():
        folder = arguments.runs / listing.called(arguments.data) / "grid" / model
        evaluations = {}
        for point, commands in commands_of.items():
            try:
                sweep.run(*commands)
            except subprocess.CalledProcessError as error:
                if error.returncode == stopping.INTERRUPTED or not (folder / point / "failed").exists():
                    raise
            evaluations[point] = parts.known(folder / point / evaluate.FILES[_SPLIT])
        found = summary(evaluations)
        files.write_json(folder / "grid.json", found)
        if arguments.results is not None:
            target = arguments.results / listing.called(arguments.data) / "grid" / f"{model}.json"
            target.parent.mkdir(parents=True, exist_ok=True)
            files.write_json(target, found)
        show(model, found)
    return 0


def _check_labels(arguments: Arguments) -> None:
    """Raises a ValueError where coherence, by which points are judged, cannot be measured."""
    config = experiment.find(listing.of(arguments.data, arguments.models[0]), quick=arguments.quick)
    if experiment.Splits(config.data)[_SPLIT].labels is None:
        raise ValueError(
            f"Expected a labelled data set, for a grid is judged by coherence, got {arguments.data} without labels."
        )


def points(arguments: Arguments, model: str) -> dict[str, list[list[str]]]:
    """Returns point -> the commands that are still to be run."""
    name = listing.of(arguments.data, model)
    config = experiment.find(name, quick=arguments.quick)
    if not hasattr(config.model, "beta"):
        raise ValueError(f"Expected models with a beta, got {name}.")
    stage = "joint" if "joint" in config.training else "vae"
    size = ["--quick"] if arguments.quick else []
    for of, settings in config.training.items():
        size += [f"--training.{of}.num-steps", str(math.ceil(arguments.share * settings.num_steps))]
    grid = [(f"beta_{beta:g}_rate_{rate:g}", beta, rate) for beta, rate in itertools.product(arguments.betas, arguments.rates)]
    if len({point for point, *_ in grid}) < max(len(grid), 1):
        raise ValueError(f"Expected betas and rates that differ in six digits, got {arguments.betas} and {arguments.rates}.")
    asked = sweep.parse_evaluate(f"--split {_SPLIT}", arguments.evaluate)
    if asked.split != _SPLIT or asked.chains_only:
        raise ValueError(f"Expected --evaluate with the whole {_SPLIT} split, got {arguments.evaluate!r}.")
    found = {}
    for point, beta, rate in grid:
        folder = arguments.runs / listing.called(arguments.data) / "grid" / model / point
        train = ["train", name, "--workdir", str(folder), "--seed", str(arguments.seed), *size]
        train += ["--model.beta", str(beta), f"--training.{stage}.learning-rate", str(rate)]
        measure = ["evaluate", "--workdir", str(folder), "--split", _SPLIT, *arguments.evaluate.split()]
        measured = evaluate.answers(parts.known(folder / evaluate.FILES[_SPLIT]), asked)
        found[point] = [train] if measured else [train, measure]  # training refuses a folder of other settings
    return found


def summary(evaluations: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Returns what a grid's points have of what was measured, and the best of them; a point without an evaluation has not trained to its end.

    Raises:
      ValueError: if none has.
    """
    of_point: dict[str, dict[str, Any]] = {}
    for point, found in evaluations.items():
        if not found:
            of_point[point] = {"failed": True}
            continue
        by_size = found["coherence"]["by_size"]
        of_point[point] = {
            "coherence": sum(by_size.values()) / len(by_size),
            "coherence_by_size": by_size,
            "joint_coherence": found["joint_coherence"],
            "log_likelihood": found["log_likelihood"]["all"],
        }
    if not (trained := [point for point, values in of_point.items() if "failed" not in values]):
        raise ValueError(f"Expected a point of the grid that trains to its end, got none of {list(of_point)}.")
    best = max(trained, key=lambda point: of_point[point]["coherence"])
    return {"split": _SPLIT, "best": best, "by_point": of_point}


def show(model: str, found: dict[str, Any]) -> None:
    """Prints a model's grid."""
    table = rich.table.Table(title=f"{model}, on validation data", title_justify="left")
    for column in ("", "coherence", "joint", "log likelihood"):
        table.add_column(column, justify="right" if column else "left")
    for point, values in found["by_point"].items():
        if "failed" in values:
            table.add_row(point, "failed", "", "")
            continue
        cells = f"{values['coherence']:.3f}", f"{values['joint_coherence']:.3f}", f"{values['log_likelihood']:.0f}"
        table.add_row(point, *cells, style="bold" if point == found["best"] else None)
    rich.console.Console().print(table)


if __name__ == "__main__":
    experiment.main(main)
