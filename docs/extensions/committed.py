"""Tables out of the committed JSON: results under experiments/results, speed under experiments/benchmarks, published numbers beside them.

    ```{committed} coherence polydigits
    ```

The directive's argument names one of the functions in `TABLES` and what it is given. New data sets, models and seeds appear by themselves.
`python docs/extensions/committed.py` writes the README's tables again.
"""

import json
import pathlib
import re
import sys
from collections.abc import Callable, Iterable, Sequence

ROOT = pathlib.Path(__file__).parents[2]
RESULTS = ROOT / "experiments" / "results"
BENCHMARKS = ROOT / "experiments" / "benchmarks"
README = ROOT / "README.md"
README_SPEED = (
    "train/polymnist_512/joint",
    "train/polymnist_512/experts",
    "draws/polymnist_512/1",
    "subset/polymnist_32/2_reference",
    "subset/polymnist_32/2_default",
    "subset/polymnist_512/2_default",
    "start/polymnist_32/train_cached",
    "memory/train_polymnist_512_joint",
)
"""The rows that the README shows, those where we are behind too."""


def markdown(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Returns a table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def data_sets() -> list[str]:
    """Returns the data sets that have committed results."""
    return sorted(p.name for p in RESULTS.iterdir() if list(p.glob("*/seed_*/evaluation.json")))


def coherence(data: str) -> str:
    """Coherence by the number of observed modalities; joint coherence. Mean ± standard deviation over the seeds."""
    columns, rows = _runs(data, lambda column: re.match(r"seeds|from \d|joint", column))
    return markdown(columns, [*rows, *_published(data, columns)])


def quality(data: str) -> str:
    """Fréchet distances, diversity, log likelihood and clusters of the same runs."""
    return markdown(*_runs(data, lambda column: not re.match(r"from \d|joint", column)))


def directions(data: str) -> str:
    """Coherence of every modality outside the subset given one modality, for sets of two."""
    rows = []
    for model, folders in _models(data).items():
        evaluations = [_read(folder / "evaluation.json") for folder in folders]
        pairs = evaluations[0]["coherence"]["by_subset"]
        cells = {
            f"{target} given {given}": _spread([e["coherence"]["by_subset"][given][target] for e in evaluations], ".3f")
            for given in pairs
            for target in pairs[given]
        }
        rows.append([model, *cells.values()])
    columns = ["", *cells]
    return markdown(columns, [*rows, *_published(data, columns)])


def demo() -> str:
    """The run of `make demo`."""
    from experiments import report

    e = _read(RESULTS / "polydigits" / "jnf" / "evaluation.json")
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
    return markdown(["", ""], rows)


def product_gap() -> str:
    """Ways to multiply experts: each on the same trained runs, observations and codes; means over the seeds."""
    rows = []
    for folder in sorted((RESULTS / "product_gap").glob("*/*")):
        for arm in sorted(_products(folder), key=lambda path: (path.name != "default", path.name)):
            found = [_read(path) for path in sorted(arm.glob("seed_*.json"))]
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
    return markdown([*columns, "R-hat < 1.01"], rows)


def direct_experts() -> str:
    """Direct experts' own draws beside those of the products, on the same observations of the same subsets; means over the seeds that have both."""
    rows = []
    for folder in sorted((RESULTS / "product_gap").glob("*/*")):
        seeds = sorted(path.name for path in (folder / "direct").glob("seed_*.json"))
        for arm in ("direct", *sorted(path.name for path in _products(folder))):
            found = [_read(folder / arm / seed)["by_subset"] for seed in seeds]
            for subset in _read(folder / "direct" / seeds[0])["by_subset"] if seeds else ():
                of = lambda what, found=found, subset=subset: [f[subset][what] for f in found]
                means = lambda what, of=of: [sum(targets.values()) / len(targets) for targets in of(what)]
                cells = [
                    _spread(means("coherence"), ".3f"),
                    _spread(means("diversity"), ".3f"),
                    _spread(of("radius_ratio"), ".2f"),
                ]
                rows.append([f"{folder.parent.name}/{folder.name}", subset, arm, str(len(seeds)), *cells])
    rows.sort(key=lambda row: (row[0], len(row[1]), row[1]))
    return markdown(["run", "observed", "draws of", "seeds", "coherence", "diversity", "radius"], rows)


def _products(folder: pathlib.Path) -> list[pathlib.Path]:
    """Returns the folders of the rules of multiplying experts; a direct expert's draws are those of no product."""
    return [path for path in folder.iterdir() if path.name != "direct"]


def product_differences() -> str:
    """Score of the default rule less that of another: mean over observations ± its standard error, by seed and size."""
    rows = []
    for folder in sorted((RESULTS / "product_gap").glob("*/*")):
        for path in sorted((folder / "default").glob("seed_*.json")):
            default = _read(path)["score"]["by_size"]
            others = (p for p in _products(folder) if p.name != "default" and (p / path.name).exists())
            for other in sorted(others):
                scores = _read(other / path.name)["score"]["by_size"]
                cells = [_paired(default[size]["values"], scores[size]["values"]) for size in default]
                rows.append([f"{folder.parent.name}/{folder.name}", path.stem, other.name, " / ".join(cells)])
    return markdown(["run", "seed", "default less", "nats, by observed modalities"], rows)


def gap() -> str:
    """KL(p_theta || q) in nats on the toy, ± standard error; coherence in both directions."""
    rows, floor = [], None
    for folder in sorted((RESULTS / "toy").iterdir()):
        gaps = _read(folder / "inference_gap.json")["by_subset"]
        pairs = _read(folder / "evaluation.json")["coherence"]["by_subset"]
        given = [gaps[name] for name in ("square", "circle")]
        plain = [entry.get("given_observation", entry) for entry in given]
        cells = [_error(entry) for entry in plain]
        cells += [_error(entry) if entry["given"] == "features" else "" for entry in given]
        cells += [f"{pairs['square']['circle']:.3f}", f"{pairs['circle']['square']:.3f}"]
        rows.append([f"toy/{folder.name}", *cells])
        floor = floor or [_error(entry["floor"]) for entry in plain]
    rows.append(["floor of stage 1", *floor, "", "", "", ""])
    columns = ["", "gap given the square", "the circle", "given the square's features", "the circle's", "square → circle"]
    return markdown([*columns, "circle → square"], rows)


def gap_seeds() -> str:
    """The same for every seed: Gaussian and flow experts on one stage 1."""
    seeds = {_read(RESULTS / "toy" / "jnf" / "config.json")["seed"]: "."}
    seeds |= {int(p.name[5:]): p.name for p in (RESULTS / "toy" / "jnf").glob("seed_*")}
    rows = []
    for seed, folder in sorted(seeds.items()):
        plain, flow = (_read(RESULTS / "toy" / m / folder / "inference_gap.json")["by_subset"] for m in ("gaussian", "jnf"))
        pairs = _read(RESULTS / "toy" / "jnf" / folder / "evaluation.json")["coherence"]["by_subset"]
        cells = [str(seed)]
        for subset in ("square", "circle"):
            means = plain[subset]["mean"], flow[subset]["mean"]
            cells += [f"{means[0]:.2f}", f"{means[1]:.2f}", f"{means[1] / means[0]:.2f}"]
        rows.append([*cells, f"{pairs['square']['circle']:.3f}", f"{pairs['circle']['square']:.3f}"])
    columns = ["seed", "square: Gaussian", "flow", "ratio", "circle: Gaussian", "flow", "ratio"]
    return markdown([*columns, "flow, square → circle", "circle → square"], rows)


def self_reconstruction() -> str:
    """What experts keep of a modality that they generate from itself."""
    found = _read(RESULTS / "polydigits" / "self_reconstruction_m1.json")
    rows = [[name, *(f"{value:.3f}" for value in values.values())] for name, values in found["by_run"].items()]
    rows.append(["the mean image", "", f"{found['background_error_of_the_mean']:.3f}"])
    return markdown(["", "right digit", "background error"], rows)


def speed(prefix: str = "") -> str:
    """Speed beside MultiVae; a ratio above 1 says that we are ahead."""
    rows = _read(BENCHMARKS / "results.json")["rows"]
    return _speed(row for row in rows if row["name"].startswith(prefix))


def accelerator(prefix: str = "") -> str:
    """Speed on an accelerator, beside MultiVae's where it was asked; only rows that were measured."""
    rows = []
    for row in _read(BENCHMARKS / "accelerator.json")["rows"]:
        if not row["name"].startswith(prefix):
            continue
        size = (
            f"batch {row['batch_size']:,}, {row['precision']}"
            if "batch_size" in row
            else f"{row['num_observations']:,} observations"
        )
        unit = "s" if prefix == "subset/" else f"{row['unit']}/s"
        theirs = _short(row["theirs"]) if "theirs" in row else ""
        ratio = f"{row['ratio']:.3g}" if "ratio" in row else ""
        rows.append(
            [row["name"], size, f"{_short(row['ours'])} {unit}", theirs, ratio, f"{row['seconds_to_first_result']:.0f}"]
        )
    return markdown(["", "", "jnf_jax", "MultiVae", "ratio", "s to the first result"], rows)


def rounding() -> str:
    """What the precision of an accelerator's float32 matrix products does to trained flows."""
    rows = [
        [
            row["precision"],
            f"{row['density_error_rms']:.1g}, {row['density_error_largest']:.1g}",
            f"{row['inverse_error_largest']:.1g}",
            f"{row['standardised_mean_square']:.4f} ± {row['standard_error']:.4f}",
            f"{row['chains_seconds']:.2f}",
        ]
        for row in _read(BENCHMARKS / "accelerator.json")["rounding"]
    ]
    return markdown(
        [
            "precision",
            "error of log densities, nats: rms, largest",
            "largest error of inverses",
            "mean square of draws",
            "chains, s",
        ],
        rows,
    )


def streaming() -> str:
    """What streaming costs: memory beside that of a hundredth of the data, throughput beside data on the device."""
    found = _read(BENCHMARKS / "streaming.json")
    return markdown(
        ["", ""],
        [
            ["data, GB", f"{found['gigabytes']:.2f}"],
            ["resident memory, GB", f"{found['resident_gigabytes']:.2f}"],
            ["resident memory with a hundredth of the data, GB", f"{found['resident_gigabytes_small']:.2f}"],
            ["examples a second, over those of data on the device", f"{found['share_of_on_device']:.3f}"],
        ],
    )


def scaling() -> str:
    """Weak scaling: examples a second where every device has the same work."""
    rows = [
        [
            f"{row['processes']}{'' if row['together'] else ' apart'}",
            row["devices"],
            row["processes"] * row["cores"],
            f"{row['examples_per_second']:.0f}",
            f"{row['efficiency']:.2f}",
        ]
        for row in _read(BENCHMARKS / "scaling.json")["rows"]
    ]
    return markdown(["processes", "devices each", "cores", "examples/s", "efficiency"], [list(map(str, row)) for row in rows])


def samplers() -> str:
    """Samplers on the trained bent Gaussians, 500 draws a chain."""
    (found,) = _read(BENCHMARKS / "samplers.json").values()
    best = sorted(found.items(), key=lambda item: -item[1]["effective draws/s"])
    rhat = "largest R-hat of a coordinate"
    rows = [[name, f"{row['effective draws/s']:,.0f}", f"{row['first call']:.0f}", f"{row[rhat]:.3f}"] for name, row in best]
    return markdown(["sampler", "effective draws/s", "first call, s", rhat], rows)


def others(*shown: str) -> str:
    """Coherence on every data set that no table above shows."""
    return "\n\n".join(f"**{data}**\n\n{coherence(data)}" for data in data_sets() if data not in shown)


def _runs(data: str, chosen: Callable[[str], object]) -> tuple[list[str], list[list[str]]]:
    from experiments import report

    runs = [report.load(folder) for folders in _models(data).values() for folder in folders]
    columns, rows = report.table(report.grouped(runs))
    kept = [0, *(i for i, column in enumerate(columns) if i and chosen(column))]
    return [columns[i] for i in kept], [[row[i] for i in kept] for row in rows]


def _models(data: str) -> dict[str, list[pathlib.Path]]:
    found: dict[str, list[pathlib.Path]] = {}
    for path in sorted((RESULTS / data).glob("*/seed_*/evaluation.json")):
        found.setdefault(path.parts[-3], []).append(path.parent)
    return dict(sorted(found.items(), key=lambda item: (item[0] != "jnf", item[0])))  # JNF first


def _published(data: str, columns: Sequence[str]) -> list[list[str]]:
    rows = _read(pathlib.Path(__file__).parent / "published.json").get(data, [])
    rows = [[row.get(column, "") for column in columns] for row in rows]
    return [[f"*{cell}*" if cell else "" for cell in row] for row in rows if any(row[1:])]


def _speed(rows: Iterable[dict]) -> str:
    def cells(row):
        theirs, ratio = row.get("theirs"), row.get("ratio")
        share = row.get("roofline_fraction")
        return [
            row["name"],
            f"{_short(row['ours'])} {row['unit']}",
            _short(theirs) if theirs else "",
            f"{ratio:.2f}" if ratio and ratio < 9.95 else f"{ratio:.0f}" if ratio else "",
            f"{share:.2f}" if share else "",
        ]

    return markdown(["", "jnf_jax", "MultiVae", "ratio", "of a matrix product"], map(cells, rows))


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 200 else f"{value:.3g}"


def _error(entry: dict) -> str:
    return f"{entry['mean']:.2f} ± {entry['standard_error']:.2f}"


def _spread(values: Sequence[float], form: str) -> str:
    mean = sum(values) / len(values)
    if len(values) == 1:
        return format(mean, form)
    deviation = (sum((v - mean) ** 2 for v in values) / (len(values) - 1)) ** 0.5
    return f"{mean:{form}} ± {deviation:{form}}"


def _sizes(found: Sequence[dict], name: str, form: str) -> str:
    """Returns the means over runs, by size, each with its standard error over observations where the runs have one."""

    def cell(size: str) -> str:
        entries = [f[name]["by_size"][size] for f in found]
        if not isinstance(entries[0], dict):
            return format(sum(entries) / len(entries), form)
        error = sum(entry["standard_error"] ** 2 for entry in entries) ** 0.5 / len(entries)
        return f"{sum(entry['mean'] for entry in entries) / len(entries):{form}} ± {error:{form}}"

    return " / ".join(cell(size) for size in found[0][name]["by_size"])


def _paired(first: Sequence[float], other: Sequence[float]) -> str:
    differences = [a - b for a, b in zip(first, other, strict=True)]
    mean = sum(differences) / len(differences)
    variance = sum((d - mean) ** 2 for d in differences) / (len(differences) - 1)
    return f"{mean:.2f} ± {(variance / len(differences)) ** 0.5:.2f}"


def _read(path: pathlib.Path):
    return json.loads(path.read_text())


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
        self_reconstruction,
        speed,
        accelerator,
        rounding,
        streaming,
        scaling,
        samplers,
        others,
    )
}


def readme_tables() -> dict[str, str]:
    """Returns the README's tables, by the name of their mark."""
    chosen = {row["name"]: row for row in _read(BENCHMARKS / "results.json")["rows"]}
    return {"coherence": coherence("polydigits"), "speed": _speed(chosen[name] for name in README_SPEED)}


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
    """Registers the directive."""
    from sphinx.util.docutils import SphinxDirective

    class Committed(SphinxDirective):
        """Draws one table."""

        required_arguments = 1
        optional_arguments = 10

        def run(self):
            name, *given = " ".join(self.arguments).split()
            return self.parse_text_to_nodes(TABLES[name](*given))

    app.add_directive("committed", Committed)
    return {"version": "1", "parallel_read_safe": True}


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    write_readme()
