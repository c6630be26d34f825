"""Trains and measures many models of a data set and puts them beside each other.

    jnf-jax compare polydigits --seeds 0 1 2 [--quick] [--models jnf mvae] [--results experiments/results]

Runs go to `runs/<data set>/<model>/seed_<n>`, as those of `experiments.sweep`. What is finished is not done again, so that a comparison that was stopped
goes on where it was. After each run `runs/<data set>/comparison.*` is written anew from what is finished: `md` holds one table, `png` the paper's
figure 4 (coherence by the number of observed modalities, coherence against Fréchet distance), and `html` is the whole report.
"""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Annotated, Literal

import matplotlib.pyplot as plt
import tyro

from experiments import experiment, listing, parts, report, sweep
from jnf_jax.training import files

MODELS = ("jnf", "jnf_cl", "jnf_dcca", "jmvae", "mvae", "mmvae", "mopoe", "mvtcae", "mmvae_plus")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Compares the models of a data set.

    Attributes:
      data: the data set, or the path of a folder of experiment files, one a model.
      models: its experiments; others take their joint stage from the first where it is the same. None: those of JNF, its shared forms, JMVAE,
        MVAE, MMVAE, MoPoE, MVTCAE and MMVAE+ that the data set has; every file of a folder.
      seeds: one run of every model for each.
      quick: the experiments' size for two CPU cores.
      runs: where the runs and the comparison go.
      results: where copies of configs and evaluations go.
      evaluate: further arguments of `experiments.evaluate`, in one text.
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
    evaluate: str = sweep.Arguments.evaluate
    on: Literal["here", "ray"] = "here"
    cpus: float = 1
    gpus: float = 0


def main() -> int:
    """Runs the script; returns its exit code."""
    arguments = tyro.cli(Arguments, prog="jnf-jax compare")
    if arguments.models is None:
        arguments = dataclasses.replace(arguments, models=models_of(arguments.data))
    asked = sweep.Arguments(**vars(arguments))
    sweep.check(asked)
    for _ in sweep.finish_all(asked):
        show(arguments)
    print(arguments.runs / listing.called(arguments.data) / "comparison.html")
    return 0


def models_of(data: str) -> tuple[str, ...]:
    """Returns those of `MODELS` that a data set has, all files of a folder; `MODELS` where there is none, to be refused by name."""
    known = listing.models_of(data)
    return listing.chosen(data, tuple(model for model in MODELS if model in known) or MODELS)


def show(arguments: Arguments) -> None:
    """Writes the table, the figure and the report of the runs that are measured."""
    folder = arguments.runs / listing.called(arguments.data)
    runs = [folder / model / f"seed_{seed}" for model in arguments.models for seed in arguments.seeds]
    measured = [run for run in runs if "log_likelihood" in parts.known(run / "evaluation.json")]  # not its long chains alone
    groups = report.grouped([report.load(run) for run in measured])
    files.write_text(folder / "comparison.md", report.markdown(groups) + "\n")
    files.write_text(folder / "comparison.html", report.page(groups))
    figure = draw(groups)
    temporary = folder / "comparison.tmp"
    figure.savefig(temporary, dpi=130, format="png")
    temporary.replace(folder / "comparison.png")
    plt.close(figure)


def draw(groups: Sequence[report.Group]) -> plt.Figure:
    """Returns coherence by the number of observed modalities, and against Fréchet distance where it was measured."""
    measured = any("frechet" in run.evaluation for group in groups for run in group.runs)
    width = 5.2 * (1 + measured) + 1.6  # a legend stands beside the axes, where it hides no curve
    figure, axes = plt.subplots(1, 1 + measured, figsize=(width, 4), squeeze=False, layout="constrained")
    report.draw_coherence(axes[0][0], groups)
    figure.legend(loc="outside right upper", fontsize=8)
    if measured:
        report.draw_frechet(axes[0][1], groups)  # all of them, each in its colour of the first axes
    return figure


if __name__ == "__main__":
    experiment.main(main)
