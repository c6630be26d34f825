"""Runs beside each other: one HTML page that needs nothing else, and the table of a README.

    jnf-jax report runs/a runs/b [--output report.html]
    jnf-jax report experiments/results/extended_polymnist/*/* --markdown

Runs that differ in their seed alone are one row, mean ± standard deviation over the seeds. Every number is read from the runs' `evaluation.json`, and
pictures are those of `experiments.figures` where a run has them.
"""

import dataclasses
import json
import pathlib
from collections.abc import Callable, Sequence
from typing import Annotated

import matplotlib.pyplot as plt
import numpy as np
import tyro

from experiments import experiment, pages, run_folder, tables
from jnf_jax import configs
from jnf_jax.training import files


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Puts runs beside each other.

    Attributes:
      runs: folders with a config.json and an evaluation.json.
      output: the page.
      markdown: print the table as Markdown, and write no page.
    """

    runs: Annotated[tuple[pathlib.Path, ...], tyro.conf.Positional]
    output: pathlib.Path = pathlib.Path("report.html")
    markdown: bool = False


@dataclasses.dataclass(frozen=True)
class Run:
    """A run as its files tell it.

    Attributes:
      folder: of the run.
      config: its settings.
      evaluation: what was measured.
      metrics: a row for each report of training; empty where the folder holds none.
    """

    folder: pathlib.Path
    config: dict
    evaluation: dict
    metrics: Sequence[dict] = ()

    @property
    def name(self) -> str:
        """What tells it from others on the page."""
        folder = self.folder.resolve()
        return f"{_folder_name(folder)}/{folder.name}" if folder.name.startswith("seed_") else folder.name


@dataclasses.dataclass(frozen=True)
class Group:
    """Runs of one config and several seeds."""

    name: str
    runs: Sequence[Run]

    def values(self, read: Callable[[dict], float]) -> np.ndarray:
        """Returns a number of every run that has it."""
        found = []
        for run in self.runs:
            try:
                value = read(run.evaluation)
            except KeyError:
                continue
            if value is not None:
                found.append(float(value))
        return np.asarray(found)


def main() -> int:
    """Runs the script; returns its exit code."""
    arguments = tyro.cli(Arguments, prog="jnf-jax report")
    if not arguments.runs:
        raise ValueError("Expected at least one run's folder, got none.")
    if arguments.output.is_dir():
        raise ValueError(f"Expected a file to write, got the folder {arguments.output}.")
    groups = grouped([load(folder) for folder in arguments.runs])
    if arguments.markdown:
        print(markdown(groups))
        return 0
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    files.write_text(arguments.output, page(groups))
    print(f"written: {arguments.output}")
    return 0


def load(folder: pathlib.Path) -> Run:
    """Returns an evaluated run.

    Raises:
      ValueError: if it was not evaluated.
    """
    parts = {}
    for name in ("config", "evaluation"):
        path = folder / f"{name}.json"
        if not path.exists():
            raise ValueError(f"Expected an evaluated run with a {name}.json, got {folder}.")
        parts[name] = files.read_object(path)
    if "log_likelihood" not in parts["evaluation"]:
        raise ValueError(
            f"Expected a whole evaluation in {folder}, got one of {sorted(parts['evaluation'])}: evaluate the run."
        )
    config = configs.to_json(run_folder.load(folder))  # fields that came later, with what they were before
    return Run(folder, config, parts["evaluation"], run_folder.metrics(folder))


def grouped(runs: Sequence[Run]) -> list[Group]:
    """Returns runs that differ in their seed alone as one group, in the order in which they come.

    Raises:
      ValueError: if two runs have the same config and seed, which would count twice.
    """
    found: dict[str, list[Run]] = {}
    for run in runs:
        group = found.setdefault(json.dumps({k: v for k, v in run.config.items() if k != "seed"}, sort_keys=True), [])
        if twice := [other for other in group if other.config.get("seed") == run.config.get("seed")]:
            raise ValueError(f"Expected every seed of an experiment once, got it in {twice[0].folder} and in {run.folder}.")
        group.append(run)
    return [Group(_name(members), members) for members in found.values()]


def _name(runs: Sequence[Run]) -> str:
    """Returns the folder's name; its parent's where folders are named by their seed.

    Products as published are said to be so, where the name does not.
    """
    folder = runs[0].folder.resolve()
    name = _folder_name(folder)
    multiplied = any(int(size) > 1 for size in runs[0].evaluation.get("coherence", {}).get("by_size", {}))
    published = multiplied and runs[0].config["model"].get("product_rule") == "prior"
    return f"{name} (published product)" if published and "published_product" not in name else name


def _folder_name(folder: pathlib.Path) -> str:
    return f"{folder.parent.parent.name}/{folder.parent.name}" if folder.name.startswith("seed_") else folder.name


_NUMBERS: dict[str, tuple[Callable[[dict], float], str]] = {  # column -> (how it is read, its format)
    "diversity": (lambda e: e["diversity"]["mean"], ".2f"),
    "log likelihood": (lambda e: e["log_likelihood"]["all"], ".0f"),
    "k-means": (lambda e: e["cluster_accuracy"], ".3f"),
}


def table(groups: Sequence[Group]) -> tuple[list[str], list[list[str]]]:
    """Returns columns and rows: coherence and Fréchet distance by subset size, and what else each run measured."""
    sizes = sorted(
        {size for g in groups for r in g.runs for size in r.evaluation.get("coherence", {}).get("by_size", {})}, key=int
    )
    columns: dict[str, tuple[Callable[[dict], float], str]] = {}
    for size in sizes:
        columns[f"from {size}"] = (lambda e, size=size: e["coherence"]["by_size"][size], ".3f")
    for size in sizes:
        columns[f"Fréchet from {size}"] = (lambda e, size=size: e["frechet"]["distance"]["by_size"][size], ".1f")
    for size in sizes:
        columns[f"FID from {size}"] = (lambda e, size=size: e["fid"]["by_size"][size], ".1f")
    for density in dict.fromkeys(d for g in groups for r in g.runs for d in tables.joint_coherences(r.evaluation)):
        columns[f"joint, {density}"] = (lambda e, density=density: tables.joint_coherences(e)[density], ".3f")
    for target in dict.fromkeys(t for g in groups for r in g.runs for t in r.evaluation.get("prediction", {}).get("kinds", {})):
        columns[f"{target} from the others"] = (lambda e, target=target: tables.from_all_others(e, target), ".3f")
    columns |= _NUMBERS
    kept = [name for name, (read, _) in columns.items() if any(len(g.values(read)) for g in groups)]
    rows = [[g.name, str(len(g.runs)), *(_cell(g.values(columns[n][0]), columns[n][1]) for n in kept)] for g in groups]
    return ["", "seeds", *kept], rows


def _cell(values: np.ndarray, form: str) -> str:
    if not len(values):
        return ""
    if form == ".0f" and abs(values.mean()) < 100:
        form = ".2f"
    spread = f" ± {values.std(ddof=1):{form}}" if len(values) > 1 else ""
    return f"{values.mean():{form}}{spread}"


def markdown(groups: Sequence[Group]) -> str:
    """Returns the table as Markdown."""
    columns, rows = table(groups)
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def page(groups: Sequence[Group]) -> str:
    """Returns the whole page; pictures lie inside it."""
    runs = [run for group in groups for run in group.runs]
    return pages.page(
        f"jnf_jax: {groups[0].name}" + (f" and {len(groups) - 1} more" if len(groups) > 1 else ""),
        [
            ("Results", pages.table(*table(groups)) + _counts(groups)),
            ("Coherence", _coherence(groups)),
            ("Judges", _judges(groups)),
            ("Training", _training(runs)),
            ("Chains", "".join(map(_chains, runs))),
            ("Pictures", "".join(_pictures(run, opened=run is runs[0]) for run in runs)),
            ("Settings", "".join(pages.folded(g.name, pages.code(json.dumps(g.runs[0].config, indent=1))) for g in groups)),
        ],
    )


def _counts(groups: Sequence[Group]) -> str:
    evaluations = [run.evaluation for group in groups for run in group.runs]
    counts = sorted({evaluation.get("num_observations", 0) for evaluation in evaluations})
    text = f"± is the standard deviation over seeds. Test observations: {', '.join(map(str, counts))}."

    def each(what, told):  # runs may differ, and are then not to be compared
        return " or ".join(dict.fromkeys(told(evaluation[what]) for evaluation in evaluations if what in evaluation))

    images = lambda part: f"{part['num_generated']} generated, {part['num_real']} real"
    if distances := each("frechet", lambda part: f"features of {part['features']}; {images(part)}"):
        text += f" Fréchet distances: {distances}."
    if distances := each("fid", lambda part: f"Inception-v3, {part['modality']}; {images(part)}"):
        text += f" FID: {distances}."
    return pages.note(text)


def _judges(groups: Sequence[Group]) -> str:
    """Returns the classifiers' accuracy on real test data."""
    names = list(dict.fromkeys(n for g in groups for run in g.runs for n in run.evaluation.get("classifier_accuracy", {})))
    read = lambda name: lambda evaluation: evaluation["classifier_accuracy"][name]
    rows = [[group.name, *(_cell(group.values(read(name)), ".3f") for name in names)] for group in groups]
    return pages.table(["accuracy on real test data", *names], rows) if names else ""


def _chains(run: Run) -> str:
    """Returns the diagnostics of a run's chains, folded; the summary holds the worst of them."""
    hmc = run.evaluation.get("hmc", {})
    body = ""
    for kind, part in (("chains behind the draws", hmc), ("long chains", hmc.get("long_chains", {}))):
        if not part.get("by_subset"):
            continue
        rows = [
            [
                subset,
                f"{s['acceptance']:.2f}",
                s["divergences"],
                tables.number(s["rhat_largest"], ".3f"),
                tables.number(s["share_below"], ".3f"),
                tables.number(s["ess_median"], ".0f"),
                s["improper"],
            ]
            for subset, s in part["by_subset"].items()
        ]
        below = f"share with R-hat below {part['rhat_threshold']}"
        columns = ["given", "acceptance", "divergences", "largest R-hat", below, "median ESS", "improper"]
        subsets = part["by_subset"].values()
        found = [s["rhat_largest"] for s in subsets if s["rhat_largest"] is not None]
        worst = f"largest R-hat {max(found):.3f}, " if found else ""
        divergences = sum(s["divergences"] for s in subsets)
        body += pages.folded(
            f"{run.name}, {kind}: {len(rows)} subsets, {worst}divergences {divergences}", pages.table(columns, rows)
        )
    return body


def _pictures(run: Run, *, opened: bool) -> str:
    order = lambda path: (_ORDER.index(path.stem) if path.stem in _ORDER else len(_ORDER), path.stem)
    paths = sorted((run.folder / "figures").glob("*.png"), key=order)
    if not paths:
        return pages.note(f"{run.name}: no pictures yet. jnf-jax figures --workdir {run.folder}")
    shown = "".join(pages.picture(path.read_bytes(), path.stem.replace("_", " ")) for path in paths)
    return pages.folded(run.name, shown, opened=opened)


_ORDER = ("any_to_any", "latent_space", "coherence", "losses", "chains")


def _training(runs: Sequence[Run]) -> str:
    """Returns a picture for each stage: the runs' validation losses, or training losses where none was measured."""
    stages = list(dict.fromkeys(row["stage"] for run in runs for row in run.metrics))
    return pages.beside([pages.figure(_training_figure(runs, stage), f"stage {stage}") for stage in stages])


def _training_figure(runs: Sequence[Run], stage: str) -> plt.Figure:
    figure, axis = plt.subplots(figsize=(5.2, 3.6), layout="constrained")
    for run in runs:
        rows = [row for row in run.metrics if row["stage"] == stage]
        name = "validation_loss" if any("validation_loss" in row for row in rows) else "loss"
        points = [(row["step"], row[name]) for row in rows if row.get(name) is not None]
        if points:
            axis.plot(*zip(*points, strict=True), marker="o", markersize=2.5, label=f"{run.name}, {name.replace('_', ' ')}")
    axis.set(xlabel="step", ylabel="loss, nats")
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.legend(fontsize=8)
    return figure


def _coherence(groups: Sequence[Group]) -> str:
    """Returns coherence by subset size, and against Fréchet distance where it was measured (as the paper's figure 4)."""
    measured = lambda part: [g for g in groups if any(part in run.evaluation for run in g.runs)]
    shown = []
    for part, draw, name in (
        ("coherence", draw_coherence, "coherence by the number of observed modalities"),
        ("frechet", draw_frechet, "coherence against Fréchet distance, a point for each number of observed modalities"),
    ):
        if found := measured(part):
            figure, axis = plt.subplots(figsize=(5.2, 3.6), layout="constrained")
            draw(axis, found)
            figure.legend(loc="outside right upper", fontsize=8)
            shown.append(pages.figure(figure, name))
    return pages.beside(shown)


def draw_coherence(axis: plt.Axes, groups: Sequence[Group]) -> None:
    """Draws coherence by the number of observed modalities."""
    drawn: set[int] = set()
    for group in groups:
        sizes = list(group.runs[0].evaluation.get("coherence", {}).get("by_size", {}))
        values = [group.values(lambda e, size=size: e["coherence"]["by_size"][size]) for size in sizes]
        spread = [v.std(ddof=1) if len(v) > 1 else 0.0 for v in values]
        drawn |= set(map(int, sizes))
        axis.errorbar([int(s) for s in sizes], [v.mean() for v in values], spread, marker="o", capsize=3, label=group.name)
    axis.set(xlabel="observed modalities", ylabel="coherence", xticks=sorted(drawn))


def draw_frechet(axis: plt.Axes, groups: Sequence[Group]) -> None:
    """Draws coherence against Fréchet distance, a point for each number of observed modalities."""
    for group in groups:
        sizes = list(group.runs[0].evaluation.get("frechet", {}).get("distance", {}).get("by_size", {}))
        read = lambda part, size: group.values(lambda e: part(e)["by_size"][size]).mean()
        x = [read(lambda e: e["frechet"]["distance"], size) for size in sizes]
        y = [read(lambda e: e["coherence"], size) for size in sizes]
        axis.plot(x, y, "o-", label=group.name)
        for size, *point in zip(sizes, x, y, strict=True):
            axis.annotate(size, point, textcoords="offset points", xytext=(4, 4), fontsize=7, color="0.3")
    axis.set(xlabel="Fréchet distance in the classifiers' features", ylabel="coherence")


if __name__ == "__main__":
    experiment.main(main)
