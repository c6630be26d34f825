"""Tables out of the committed JSON: results under experiments/results, speed under experiments/benchmarks, published numbers beside them.

    ```{committed} coherence polydigits
    ```

The directive's argument names one of the functions in `TABLES` and what it is given; `{committed-figure} polydigits` is the paper's figure 4 of a data
set. New data sets, models and seeds appear by themselves.
`python docs/extensions/committed.py` writes the README's tables again.
"""

import pathlib
import re
import statistics
import sys
from collections.abc import Callable, Sequence

import committed_speed
import table_text

RESULTS = table_text.ROOT / "experiments" / "results"
README = table_text.ROOT / "README.md"


def data_sets() -> list[str]:
    """Returns the data sets that have committed results."""
    return sorted(p.name for p in RESULTS.iterdir() if list(p.glob("*/seed_*/evaluation.json")))


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
            f"{target} given {given}": _spread([e["coherence"]["by_subset"][given][target] for e in evaluations], ".3f")
            for given in pairs
            for target in pairs[given]
        }
        rows.append([model, *cells.values()])
    columns = ["", *cells]
    return table_text.markdown(columns, [*rows, *_published(data, columns)])


def demo() -> str:
    """The run of `make demo`."""
    from experiments import report

    e = table_text.read(RESULTS / "polydigits" / "jnf" / "evaluation.json")
    long = e.get("hmc", {}).get("long_chains")
    rows = [[f"classifier on real {name}", f"{value:.3f}"] for name, value in e["classifier_accuracy"].items()]
    rows += [[f"coherence from {size}", f"{value:.3f}"] for size, value in e["coherence"]["by_size"].items()]
    densities = {"prior": "joint coherence, draws of the prior", "mixture": "joint coherence, draws of `sample_prior`"}
    rows += [[label, f"{report.joint_coherence(e, name):.3f}"] for name, label in densities.items()]
    rows += [
        ["diversity of draws given one observation", f"{e['diversity']['mean']:.2f}"],
        ["log likelihood of all modalities, nats", f"{e['log_likelihood']['all']:.0f}"],
        ["test observations", str(e["num_observations"])],
    ]
    if long:
        rows.append([f"observations with R-hat below {long['rhat_threshold']}, long chains", f"{long['share_below']:.4f}"])
    return table_text.markdown(["", ""], rows)


def product_gap() -> str:
    """Ways to multiply experts: each on the same trained runs, observations and codes; means over the seeds."""
    rows = []
    for folder in sorted((RESULTS / "product_gap").glob("*/*")):
        for arm in sorted(_products(folder), key=lambda path: (path.name != "default", path.name)):
            found = [table_text.read(path) for path in sorted(arm.glob("seed_*.json"))]
            cells = [f"{folder.parent.name}/{folder.name}", arm.name, str(len(found))]
            cells += [_sizes(found, "gap", ".2f"), _sizes(found, "score", ".2f"), _sizes(found, "radius_ratio", ".2f")]
            cells += [
                _sizes(found, "coherence", ".3f"),
                _sizes(found, "frechet", ".0f"),
                _spread([f["diversity"] for f in found], ".2f"),
            ]
            shares = [f["rhat_share_below"]["mean"] for f in found]
            rows.append([*cells, f"{sum(shares) / len(shares):.3f}"])
    columns = ["run", "rule", "seeds", "product gap, nats", "score, nats", "radius", "coherence", "Fréchet", "diversity"]
    return table_text.markdown([*columns, "R-hat < 1.01"], rows)


def direct_experts() -> str:
    """Direct experts' own draws beside those of the products, on the same observations of the same subsets; means over the seeds that have both."""
    rows = []
    for folder in sorted((RESULTS / "product_gap").glob("*/*")):
        seeds = sorted(path.name for path in (folder / "direct").glob("seed_*.json"))
        for arm in ("direct", *sorted(path.name for path in _products(folder))):
            found = [table_text.read(folder / arm / seed)["by_subset"] for seed in seeds]
            for subset in table_text.read(folder / "direct" / seeds[0])["by_subset"] if seeds else ():
                of = lambda what, found=found, subset=subset: [f[subset][what] for f in found]
                means = lambda what, of=of: [sum(targets.values()) / len(targets) for targets in of(what)]
                cells = [
                    _spread(means("coherence"), ".3f"),
                    _spread(means("diversity"), ".3f"),
                    _spread(of("radius_ratio"), ".2f"),
                ]
                rows.append([f"{folder.parent.name}/{folder.name}", subset, arm, str(len(seeds)), *cells])
    rows.sort(key=lambda row: (row[0], len(row[1]), row[1]))
    return table_text.markdown(["run", "observed", "draws of", "seeds", "coherence", "diversity", "radius"], rows)


def _products(folder: pathlib.Path) -> list[pathlib.Path]:
    """Returns the folders of the rules of multiplying experts; a direct expert's draws are those of no product."""
    return [path for path in folder.iterdir() if path.name != "direct"]


def product_differences() -> str:
    """Score of the default rule less that of another: mean over observations ± its standard error, by seed and size."""
    rows = []
    for folder in sorted((RESULTS / "product_gap").glob("*/*")):
        for path in sorted((folder / "default").glob("seed_*.json")):
            default = table_text.read(path)["score"]["by_size"]
            others = (p for p in _products(folder) if p.name != "default" and (p / path.name).exists())
            for other in sorted(others):
                scores = table_text.read(other / path.name)["score"]["by_size"]
                cells = [_paired(default[size]["values"], scores[size]["values"]) for size in default]
                rows.append([f"{folder.parent.name}/{folder.name}", path.stem, other.name, " / ".join(cells)])
    return table_text.markdown(["run", "seed", "default less", "nats, by observed modalities"], rows)


def gap() -> str:
    """KL(p_theta || q) in nats on the toy, ± standard error; coherence in both directions."""
    rows, floor = [], None
    for folder in sorted((RESULTS / "toy").iterdir()):
        gaps = table_text.read(folder / "inference_gap.json")["by_subset"]
        pairs = table_text.read(folder / "evaluation.json")["coherence"]["by_subset"]
        given = [gaps[name] for name in ("square", "circle")]
        plain = [entry.get("given_observation", entry) for entry in given]
        cells = [_error(entry) for entry in plain]
        cells += [_error(entry) if entry["given"] == "features" else "" for entry in given]
        cells += [f"{pairs['square']['circle']:.3f}", f"{pairs['circle']['square']:.3f}"]
        rows.append([f"toy/{folder.name}", *cells])
        floor = floor or [_error(entry["floor"]) for entry in plain]
    rows.append(["floor of stage 1", *floor, "", "", "", ""])
    columns = ["", "gap given the square", "the circle", "given the square's features", "the circle's", "square → circle"]
    return table_text.markdown([*columns, "circle → square"], rows)


def gap_seeds() -> str:
    """The same for every seed: Gaussian and flow experts on one stage 1."""
    seeds = {table_text.read(RESULTS / "toy" / "jnf" / "config.json")["seed"]: "."}
    seeds |= {int(p.name[5:]): p.name for p in (RESULTS / "toy" / "jnf").glob("seed_*")}
    rows = []
    for seed, folder in sorted(seeds.items()):
        plain, flow = (
            table_text.read(RESULTS / "toy" / m / folder / "inference_gap.json")["by_subset"] for m in ("gaussian", "jnf")
        )
        pairs = table_text.read(RESULTS / "toy" / "jnf" / folder / "evaluation.json")["coherence"]["by_subset"]
        cells = [str(seed)]
        for subset in ("square", "circle"):
            means = plain[subset]["mean"], flow[subset]["mean"]
            cells += [f"{means[0]:.2f}", f"{means[1]:.2f}", f"{means[1] / means[0]:.2f}"]
        rows.append([*cells, f"{pairs['square']['circle']:.3f}", f"{pairs['circle']['square']:.3f}"])
    columns = ["seed", "square: Gaussian", "flow", "ratio", "circle: Gaussian", "flow", "ratio"]
    return table_text.markdown([*columns, "flow, square → circle", "circle → square"], rows)


def gap_by_chains() -> str:
    """The gap in more than two latent dimensions: bounds of it, and how well a classifier tells draws of the two posteriors apart."""
    rows = []
    for path in sorted(RESULTS.glob("*/*/seed_*/inference_gap.json")):
        found = table_text.read(path)
        for subset, entry in found["by_subset"].items() if found["method"] == "chains" else ():
            bounds = f"{entry['lower']['mean']:.2f} to {entry['upper']['mean']:.2f}"
            run = "/".join(path.parts[-4:-1])
            median = f"{statistics.median(entry['values']):.1f}"
            cells = [subset, str(found["num_observations"]), _error(entry), median, bounds]
            rows.append([run, *cells, f"{entry['two_sample_accuracy']['mean']:.3f}", f"{entry['rhat_largest']:.2f}"])
    columns = ["run", "observed", "observations", "gap, nats", "median", "bounds", "told apart", "largest R-hat"]
    return table_text.markdown(columns, rows)


def self_reconstruction() -> str:
    """What experts keep of a modality that they generate from itself."""
    found = table_text.read(RESULTS / "polydigits" / "self_reconstruction_m1.json")
    rows = [[name, *(f"{value:.3f}" for value in values.values())] for name, values in found["by_run"].items()]
    rows.append(["the mean image", "", f"{found['background_error_of_the_mean']:.3f}"])
    return table_text.markdown(["", "right digit", "background error"], rows)


def grids(data: str) -> str:
    """What `jnf-jax grid` measured on validation data: coherence averaged over sizes for every beta and learning rate, the best one in bold."""
    found = {path.stem: table_text.read(path) for path in sorted((RESULTS / data / "grid").glob("*.json"))}
    points = list(dict.fromkeys(point for grid in found.values() for point in grid["by_point"]))
    rows = []
    for model, grid in found.items():
        cells = [f"{grid['by_point'][point]['coherence']:.3f}" if point in grid["by_point"] else "" for point in points]
        rows.append(
            [model, *(f"**{cell}**" if point == grid["best"] else cell for point, cell in zip(points, cells, strict=True))]
        )
    headings = [re.sub(r"beta_(.*)_rate_(.*)", r"beta \1, rate \2", point) for point in points]
    return table_text.markdown(["", *headings], rows)


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
    for path in sorted((RESULTS / data).glob("*/seed_*/evaluation.json")):
        found.setdefault(path.parts[-3], []).append(path.parent)
    return dict(sorted(found.items(), key=lambda item: (item[0] != "jnf", item[0])))  # JNF first


def _published(data: str, columns: Sequence[str]) -> list[list[str]]:
    rows = table_text.read(pathlib.Path(__file__).parent / "published.json").get(data, [])
    rows = [[row.get(column, "") for column in columns] for row in rows]
    return [[f"*{cell}*" if cell else "" for cell in row] for row in rows if any(row[1:])]


def _error(entry: dict) -> str:
    return f"{entry['mean']:.2f} ± {entry['standard_error']:.2f}"


def _spread(values: Sequence[float], form: str) -> str:
    mean = sum(values) / len(values)
    if len(values) == 1:
        return format(mean, form)
    deviation = (sum((v - mean) ** 2 for v in values) / (len(values) - 1)) ** 0.5
    return f"{mean:{form}} ± {deviation:{form}}"


def _sizes(found: Sequence[dict], name: str, form: str) -> str:
    """Returns the means over runs that have a size, each with its standard error over observations where the runs have one."""

    def cell(size: str) -> str:
        entries = [f[name]["by_size"][size] for f in found if size in f[name]["by_size"]]
        if not isinstance(entries[0], dict):
            return format(sum(entries) / len(entries), form)
        error = sum(entry["standard_error"] ** 2 for entry in entries) ** 0.5 / len(entries)
        return f"{sum(entry['mean'] for entry in entries) / len(entries):{form}} ± {error:{form}}"

    return " / ".join(cell(size) for size in dict.fromkeys(size for f in found for size in f[name]["by_size"]))


def _paired(first: Sequence[float], other: Sequence[float]) -> str:
    differences = [a - b for a, b in zip(first, other, strict=True)]
    mean = sum(differences) / len(differences)
    variance = sum((d - mean) ** 2 for d in differences) / (len(differences) - 1)
    return f"{mean:.2f} ± {(variance / len(differences)) ** 0.5:.2f}"


TABLES = {
    f.__name__: f
    for f in (
        coherence,
        quality,
        directions,
        demo,
        product_gap,
        product_differences,
        direct_experts,
        gap,
        gap_seeds,
        gap_by_chains,
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
