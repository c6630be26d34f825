"""Tables out of the committed JSON: results under experiments/results, speed under experiments/benchmarks, published numbers beside them.

    ```{committed} coherence polydigits
    ```

The directive's argument names one of the functions in `TABLES` and what it is given; `{committed-figure} polydigits` is the paper's figure 4 of a data
set. New data sets, models and seeds appear by themselves.
`python docs/extensions/committed.py` writes the README's tables again.
"""

import pathlib
import re
import sys
from collections.abc import Callable, Sequence

import committed_gaps
import committed_speed
import table_text

README = table_text.ROOT / "README.md"


def data_sets() -> list[str]:
    """Returns the data sets that have committed results."""
    return sorted(p.name for p in table_text.RESULTS.iterdir() if list(p.glob("*/seed_*/evaluation.json")))


def coherence(data: str) -> str:
    """Coherence by the number of observed modalities; joint coherence; diversity, without which coherence misleads. Mean ± standard deviation."""
    columns, rows = _runs(data, lambda column: re.match(r"seeds|from \d|joint|diversity", column))
    return table_text.markdown(columns, [*rows, *_published(data, columns)])


def quality(data: str) -> str:
    """Fréchet distances, log likelihood and clusters of the same runs."""
    return table_text.markdown(*_runs(data, lambda column: not re.match(r"from \d|joint|diversity", column)))


def figure(data: str) -> str:
    """The paper's figure 4 of the same runs, as HTML: coherence by the number of observed modalities, and against Fréchet distance."""
    from experiments import compare, pages

    return pages.figure(compare.draw(_groups(data)), "Left: coherence. Right: a point for each number of observed modalities.")


def directions(data: str) -> str:
    """Coherence of every modality outside the subset given one modality, for sets of two."""
    rows = []
    for model, folders in _models(data).items():
        evaluations = [table_text.read(folder / "evaluation.json") for folder in folders]
        pairs = evaluations[0]["coherence"]["by_subset"]
        cells = {
            f"{target} given {given}": table_text.spread(
                [e["coherence"]["by_subset"][given][target] for e in evaluations], ".3f"
            )
            for given in pairs
            for target in pairs[given]
        }
        rows.append([model, *cells.values()])
    columns = ["", *cells]
    return table_text.markdown(columns, [*rows, *_published(data, columns)])


def demo() -> str:
    """The run of `make demo`."""
    from experiments import tables

    e = table_text.read(table_text.RESULTS / "polydigits" / "jnf" / "evaluation.json")
    long = e.get("hmc", {}).get("long_chains")
    rows = [[f"classifier on real {name}", f"{value:.3f}"] for name, value in e["classifier_accuracy"].items()]
    rows += [[f"coherence from {size}", f"{value:.3f}"] for size, value in e["coherence"]["by_size"].items()]
    densities = {"prior": "joint coherence, draws of the prior", "mixture": "joint coherence, draws of `sample_prior`"}
    rows += [[label, f"{tables.joint_coherences(e)[name]:.3f}"] for name, label in densities.items()]
    rows += [
        ["diversity of draws given one observation", f"{e['diversity']['mean']:.2f}"],
        ["log likelihood of all modalities, nats", f"{e['log_likelihood']['all']:.0f}"],
        ["test observations", str(e["num_observations"])],
    ]
    if long:
        rows.append([f"observations with R-hat below {long['rhat_threshold']}, long chains", f"{long['share_below']:.4f}"])
    return table_text.markdown(["", ""], rows)


def self_reconstruction() -> str:
    """What experts keep of a modality that they generate from itself."""
    found = table_text.read(table_text.RESULTS / "polydigits" / "self_reconstruction_m1.json")
    rows = [[name, *(f"{value:.3f}" for value in values.values())] for name, values in found["by_run"].items()]
    rows.append(["the mean image", "", f"{found['background_error_of_the_mean']:.3f}"])
    return table_text.markdown(["", "right digit", "background error"], rows)


def grids(data: str) -> str:
    """What `jnf-jax grid` measured on validation data: coherence averaged over sizes for every beta and learning rate, the best one in bold."""
    found = {path.stem: table_text.read(path) for path in sorted((table_text.RESULTS / data / "grid").glob("*.json"))}
    points = sorted({point for grid in found.values() for point in grid["by_point"]}, key=_settings)
    rows = []
    for model, grid in found.items():
        cells = [_grid_cell(grid["by_point"].get(point)) for point in points]
        rows.append(
            [model, *(f"**{cell}**" if point == grid["best"] else cell for point, cell in zip(points, cells, strict=True))]
        )
    headings = ["beta {:g}, rate {:g}".format(*_settings(point)) for point in points]
    return table_text.markdown(["", *headings], rows)


def _settings(point: str) -> tuple[float, ...]:
    """Returns beta and the learning rate of a point, given its name."""
    return tuple(map(float, re.fullmatch(r"beta_(.*)_rate_(.*)", point).groups()))


def _grid_cell(values: dict | None) -> str:
    if values is None:
        return ""
    return "failed" if "failed" in values else f"{values['coherence']:.3f}"


def others(*shown: str) -> str:
    """Coherence on every data set that no table above shows."""
    return "\n\n".join(f"**{data}**\n\n{coherence(data)}" for data in data_sets() if data not in shown)


def _runs(data: str, chosen: Callable[[str], object]) -> tuple[list[str], list[list[str]]]:
    from experiments import report

    columns, rows = report.table(_groups(data))
    kept = [0, *(i for i, column in enumerate(columns) if i and chosen(column))]
    return [columns[i] for i in kept], [[row[i] for i in kept] for row in rows]


def _groups(data: str) -> list:
    from experiments import report

    return report.grouped([report.load(folder) for folders in _models(data).values() for folder in folders])


def _models(data: str) -> dict[str, list[pathlib.Path]]:
    found: dict[str, list[pathlib.Path]] = {}
    for path in sorted((table_text.RESULTS / data).glob("*/seed_*/evaluation.json")):
        found.setdefault(path.parts[-3], []).append(path.parent)
    return dict(sorted(found.items(), key=lambda item: (item[0] != "jnf", item[0])))  # JNF first


def _published(data: str, columns: Sequence[str]) -> list[list[str]]:
    rows = table_text.read(pathlib.Path(__file__).parent / "published.json").get(data, [])
    rows = [[row.get(column, "") for column in columns] for row in rows]
    return [[f"*{cell}*" if cell else "" for cell in row] for row in rows if any(row[1:])]


TABLES = {
    f.__name__: f
    for f in (
        coherence,
        quality,
        directions,
        demo,
        committed_gaps.product_gap,
        committed_gaps.product_differences,
        committed_gaps.direct_experts,
        committed_gaps.gap,
        committed_gaps.gap_seeds,
        committed_gaps.gap_by_chains,
        self_reconstruction,
        grids,
        committed_speed.speed,
        committed_speed.accelerator,
        committed_speed.rounding,
        committed_speed.streaming,
        committed_speed.scaling,
        committed_speed.samplers,
        others,
    )
}


def readme_tables() -> dict[str, str]:
    """Returns the README's tables, by the name of their mark."""
    return {"coherence": coherence("polydigits"), "speed": committed_speed.readme()}


def write_readme() -> None:
    """Puts the tables between their marks."""
    text = README.read_text()
    for name, table in readme_tables().items():
        begin, end = f"<!-- table: {name} -->", "<!-- end -->"
        text = re.sub(
            rf"({re.escape(begin)}\n\n).*?(\n?{end})", lambda m, t=table: m[1] + t + "\n\n" + end, text, flags=re.DOTALL
        )
    README.write_text(text)


def setup(app):
    """Registers the directives."""
    from docutils import nodes
    from sphinx.util.docutils import SphinxDirective

    class Committed(SphinxDirective):
        """Draws one table."""

        required_arguments = 1
        optional_arguments = 10

        def run(self):
            name, *given = " ".join(self.arguments).split()
            return self.parse_text_to_nodes(TABLES[name](*given))

    class CommittedFigure(SphinxDirective):
        """Draws the figure of a data set."""

        required_arguments = 1

        def run(self):
            return [nodes.raw("", figure(self.arguments[0]), format="html")]

    app.add_directive("committed", Committed)
    app.add_directive("committed-figure", CommittedFigure)
    return {"version": "1", "parallel_read_safe": True}


if __name__ == "__main__":
    sys.path.insert(0, str(table_text.ROOT))
    write_readme()
