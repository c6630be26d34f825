"""Runs beside each other: one HTML page that needs nothing else, and the table of a README.

    jnf-jax report runs/a runs/b [--output report.html]
    jnf-jax report experiments/results/extended_polymnist/*/* --markdown

Runs that differ in their seed alone are one row, mean ± standard deviation over the seeds. Every number is read from the runs' `evaluation.json`, and
pictures are those of `experiments.figures` where a run has them.
"""

import base64
import dataclasses
import html
import io
import json
import pathlib
from collections.abc import Callable, Sequence
from typing import Annotated

import matplotlib.pyplot as plt
import numpy as np
import tyro

from experiments import experiment, tables
from jnf_jax import configs
from jnf_jax.training import checkpoint


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
    """A run as its files tell it."""

    folder: pathlib.Path
    config: dict
    evaluation: dict

    @property
    def name(self) -> str:
        """What tells it from others on the page."""
        return experiment.label(self.folder)


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
                found.append(float(read(run.evaluation)))
            except KeyError:
                continue
        return np.asarray(found)


def main() -> int:
    """Runs the script; returns its exit code."""
    arguments = tyro.cli(Arguments, prog="jnf-jax report")
    groups = grouped([load(folder) for folder in arguments.runs])
    if arguments.markdown:
        print(markdown(groups))
        return 0
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    checkpoint.write_text(arguments.output, page(groups))
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
        parts[name] = checkpoint.read_json(path)
    config = configs.to_json(configs.from_json(parts["config"]))  # fields that came later, with what they were before
    return Run(folder, config, parts["evaluation"])


def grouped(runs: Sequence[Run]) -> list[Group]:
    """Returns runs that differ in their seed alone as one group, in the order in which they come."""
    found: dict[str, list[Run]] = {}
    for run in runs:
        found.setdefault(json.dumps({k: v for k, v in run.config.items() if k != "seed"}, sort_keys=True), []).append(run)
    return [Group(_name(members), members) for members in found.values()]


def _name(runs: Sequence[Run]) -> str:
    """Returns the folder's name; its parent's where folders are named by their seed."""
    folder = runs[0].folder.resolve()
    multiplied = any(int(size) > 1 for size in runs[0].evaluation.get("coherence", {}).get("by_size", {}))
    if multiplied and runs[0].config["model"].get("product_rule") == "prior":
        return f"{_folder_name(folder)} (published product)"
    return _folder_name(folder)


def _folder_name(folder: pathlib.Path) -> str:
    return f"{folder.parent.parent.name}/{folder.parent.name}" if folder.name.startswith("seed_") else folder.name


_NUMBERS: dict[str, tuple[Callable[[dict], float], str]] = {  # column -> (how it is read, its format)
    "joint, prior": (lambda e: joint_coherence(e, "prior"), ".3f"),
    "joint, mixture": (lambda e: joint_coherence(e, "mixture"), ".3f"),
    "diversity": (lambda e: e["diversity"]["mean"], ".2f"),
    "log likelihood": (lambda e: e["log_likelihood"]["all"], ".0f"),
    "k-means": (lambda e: e["cluster_accuracy"], ".3f"),
}


def joint_coherence(evaluation: dict, density: str) -> float:
    """Returns the joint coherence of draws of a density; evaluations made before models had marginals know it by other names."""
    if "joint_coherence_by_density" in evaluation:
        return evaluation["joint_coherence_by_density"][density]
    return evaluation["joint_coherence"] if density == "prior" else evaluation["joint_coherence_fitted"][density]


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
    columns |= _NUMBERS
    kept = [name for name, (read, _) in columns.items() if any(len(g.values(read)) for g in groups)]
    rows = [[g.name, str(len(g.runs)), *(_cell(g.values(columns[n][0]), columns[n][1]) for n in kept)] for g in groups]
    return ["", "seeds", *kept], rows


def _cell(values: np.ndarray, form: str) -> str:
    if not len(values):
        return ""
    spread = f" ± {values.std(ddof=1):{form}}" if len(values) > 1 else ""
    return f"{values.mean():{form}}{spread}"


def markdown(groups: Sequence[Group]) -> str:
    """Returns the table as Markdown."""
    columns, rows = table(groups)
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def page(groups: Sequence[Group]) -> str:
    """Returns the whole page; pictures lie inside it."""
    sections = [
        _section("Results", _html_table(*table(groups)) + _counts(groups)),
        _section(
            "Coherence", "".join(_image(figure) for figure in (_coherence_figure(groups), _frechet_figure(groups)) if figure)
        ),
        _section("Judges", _judges(groups)),
        _section("Chains", _chains(groups)),
        *(_section(f"Pictures of {run.name}", _pictures(run)) for group in groups for run in group.runs),
        _section("Settings", _settings(groups)),
    ]
    return f"<!doctype html><html lang='en'><meta charset='utf-8'><title>jnf_jax</title><style>{_STYLE}</style><body>{''.join(sections)}</body></html>"


_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; max-width: 1100px; margin: 2em auto; padding: 0 1em; color: #222 }
table { border-collapse: collapse; display: block; overflow-x: auto } td, th { padding: .25em .7em; text-align: right; border-bottom: 1px solid #ddd }
td:first-child, th:first-child { text-align: left } th { border-bottom: 2px solid #888 } img { max-width: 100% } .note { color: #666 }
"""


def _section(title: str, body: str) -> str:
    return f"<h2>{html.escape(title)}</h2>{body}" if body else ""


def _html_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    line = lambda cells, tag: "<tr>" + "".join(f"<{tag}>{html.escape(str(c))}</{tag}>" for c in cells) + "</tr>"
    return f"<table>{line(columns, 'th')}{''.join(line(row, 'td') for row in rows)}</table>"


def _note(text: str) -> str:
    return f"<p class='note'>{html.escape(text)}</p>"


def _counts(groups: Sequence[Group]) -> str:
    evaluation = groups[0].runs[0].evaluation
    counts = sorted({run.evaluation.get("num_observations", 0) for group in groups for run in group.runs})
    text = f"± is the standard deviation over seeds. Test observations: {', '.join(map(str, counts))}."
    if "frechet" in evaluation:
        part = evaluation["frechet"]
        text += (
            f" Fréchet distances: features of {part['features']}; {part['num_generated']} generated, {part['num_real']} real."
        )
    if "fid" in evaluation:
        part = evaluation["fid"]
        text += f" FID: Inception-v3, {part['modality']}; {part['num_generated']} generated, {part['num_real']} real."
    return _note(text)


def _judges(groups: Sequence[Group]) -> str:
    names = list(groups[0].runs[0].evaluation.get("classifier_accuracy", {}))
    rows = [
        [run.name, *(f"{run.evaluation['classifier_accuracy'].get(n, float('nan')):.3f}" for n in names)]
        for group in groups
        for run in group.runs
        if "classifier_accuracy" in run.evaluation
    ]
    return _html_table(["accuracy on real test data", *names], rows) if rows else ""


def _chains(groups: Sequence[Group]) -> str:
    columns = ["", "given", "acceptance", "divergences", "R-hat, largest", "share below", "ESS, median", "improper"]
    rows = []
    for run in (run for group in groups for run in group.runs):
        hmc = run.evaluation.get("hmc", {})
        for kind, part in (("", hmc), (", long", hmc.get("long_chains", {}))):
            for subset, s in part.get("by_subset", {}).items():
                share = f"{tables.number(s['share_below'], '.3f')} ({part['rhat_threshold']})"
                numbers = [
                    f"{s['acceptance']:.2f}",
                    s["divergences"],
                    tables.number(s["rhat_largest"], ".3f"),
                    share,
                    tables.number(s["ess_median"], ".0f"),
                    s["improper"],
                ]
                rows.append([run.name + kind, subset, *numbers])
    return _html_table(columns, rows) if rows else ""


def _pictures(run: Run) -> str:
    paths = sorted((run.folder / "figures").glob("*.png"))
    if not paths:
        return _note(f"None in this folder: jnf-jax figures --workdir {run.folder}")
    embed = lambda path: f"<h3>{html.escape(path.stem.replace('_', ' '))}</h3>{_embedded(path.read_bytes())}"
    return "".join(embed(path) for path in paths)


def _settings(groups: Sequence[Group]) -> str:
    show = lambda group: (
        f"<details><summary>{html.escape(group.name)}</summary><pre>{html.escape(json.dumps(group.runs[0].config, indent=1))}</pre></details>"
    )
    return "".join(map(show, groups))


def _coherence_figure(groups: Sequence[Group]) -> plt.Figure | None:
    figure, axis = plt.subplots(figsize=(5.2, 3.6), layout="constrained")
    draw_coherence(axis, groups)
    return figure


def draw_coherence(axis: plt.Axes, groups: Sequence[Group]) -> None:
    """Draws coherence by the number of observed modalities."""
    for group in groups:
        sizes = list(group.runs[0].evaluation.get("coherence", {}).get("by_size", {}))
        values = [group.values(lambda e, size=size: e["coherence"]["by_size"][size]) for size in sizes]
        spread = [v.std(ddof=1) if len(v) > 1 else 0.0 for v in values]
        axis.errorbar([int(s) for s in sizes], [v.mean() for v in values], spread, marker="o", capsize=3, label=group.name)
    axis.set(xlabel="observed modalities", ylabel="coherence")
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.legend(fontsize=8)


def _frechet_figure(groups: Sequence[Group]) -> plt.Figure | None:
    """Returns coherence against Fréchet distance, a point for each subset size (as the paper's figure 4)."""
    if not any("frechet" in run.evaluation for group in groups for run in group.runs):
        return None
    figure, axis = plt.subplots(figsize=(5.2, 3.6), layout="constrained")
    draw_frechet(axis, groups)
    return figure


def draw_frechet(axis: plt.Axes, groups: Sequence[Group]) -> None:
    """Draws coherence against Fréchet distance, a point for each number of observed modalities."""
    for group in groups:
        sizes = list(group.runs[0].evaluation.get("frechet", {}).get("distance", {}).get("by_size", {}))
        read = lambda part, size: group.values(lambda e: part(e)["by_size"][size]).mean()
        x = [read(lambda e: e["frechet"]["distance"], size) for size in sizes]
        y = [read(lambda e: e["coherence"], size) for size in sizes]
        axis.plot(x, y, "o-", label=group.name)
        for size, *point in zip(sizes, x, y, strict=True):
            axis.annotate(size, point, textcoords="offset points", xytext=(4, 4), fontsize=8)
    axis.set(xlabel="Fréchet distance in the classifiers' features", ylabel="coherence")
    axis.legend(fontsize=8)


def _image(figure: plt.Figure) -> str:
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=110)
    plt.close(figure)
    return _embedded(out.getvalue())


def _embedded(png: bytes) -> str:
    return f"<img alt='' src='data:image/png;base64,{base64.b64encode(png).decode()}'>"


if __name__ == "__main__":
    experiment.main(main)
