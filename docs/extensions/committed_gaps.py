"""Tables of what products of experts and single experts lose: product gaps, inference gaps."""

import pathlib
import statistics
from collections.abc import Sequence

import table_text


def product_gap() -> str:
    """Ways to multiply experts: each on the same trained runs, observations and codes; means over the seeds."""
    rows = []
    for folder in sorted((table_text.RESULTS / "product_gap").glob("*/*")):
        for arm in sorted(_products(folder), key=lambda path: (path.name != "default", path.name)):
            found = [table_text.read(path) for path in sorted(arm.glob("seed_*.json"))]
            cells = [f"{folder.parent.name}/{folder.name}", arm.name, str(len(found))]
            cells += [_sizes(found, "gap", ".2f"), _sizes(found, "score", ".2f"), _sizes(found, "radius_ratio", ".2f")]
            cells += [
                _sizes(found, "coherence", ".3f"),
                _sizes(found, "frechet", ".0f"),
                table_text.spread([f["diversity"] for f in found], ".2f"),
            ]
            shares = [f["rhat_share_below"]["mean"] for f in found]
            rows.append([*cells, f"{sum(shares) / len(shares):.3f}"])
    columns = ["run", "rule", "seeds", "product gap, nats", "score, nats", "radius", "coherence", "Fréchet", "diversity"]
    return table_text.markdown([*columns, "R-hat < 1.01"], rows)


def direct_experts() -> str:
    """Direct experts' own draws beside those of the products, on the same observations of the same subsets; means over the seeds that have both."""
    rows = []
    for folder in sorted((table_text.RESULTS / "product_gap").glob("*/*")):
        seeds = sorted(path.name for path in (folder / "direct").glob("seed_*.json"))
        for arm in ("direct", *sorted(path.name for path in _products(folder))):
            found = [table_text.read(folder / arm / seed)["by_subset"] for seed in seeds]
            for subset in table_text.read(folder / "direct" / seeds[0])["by_subset"] if seeds else ():
                of = lambda what, found=found, subset=subset: [f[subset][what] for f in found]
                means = lambda what, of=of: [sum(targets.values()) / len(targets) for targets in of(what)]
                cells = [
                    table_text.spread(means("coherence"), ".3f"),
                    table_text.spread(means("diversity"), ".3f"),
                    table_text.spread(of("radius_ratio"), ".2f"),
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
    for folder in sorted((table_text.RESULTS / "product_gap").glob("*/*")):
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
    for folder in sorted((table_text.RESULTS / "toy").iterdir()):
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
    seeds = {table_text.read(table_text.RESULTS / "toy" / "jnf" / "config.json")["seed"]: "."}
    seeds |= {int(p.name[5:]): p.name for p in (table_text.RESULTS / "toy" / "jnf").glob("seed_*")}
    rows = []
    for seed, folder in sorted(seeds.items()):
        plain, flow = (
            table_text.read(table_text.RESULTS / "toy" / m / folder / "inference_gap.json")["by_subset"]
            for m in ("gaussian", "jnf")
        )
        pairs = table_text.read(table_text.RESULTS / "toy" / "jnf" / folder / "evaluation.json")["coherence"]["by_subset"]
        cells = [str(seed)]
        for subset in ("square", "circle"):
            means = plain[subset]["mean"], flow[subset]["mean"]
            cells += [f"{means[0]:.2f}", f"{means[1]:.2f}", f"{means[1] / means[0]:.2f}"]
        rows.append([*cells, f"{pairs['square']['circle']:.3f}", f"{pairs['circle']['square']:.3f}"])
    columns = ["seed", "square: Gaussian", "flow", "ratio", "circle: Gaussian", "flow", "ratio"]
    return table_text.markdown([*columns, "flow, square → circle", "circle → square"], rows)


def gap_by_chains() -> str:
    """The gap in more than two latent dimensions, and how well a classifier tells draws of the two posteriors apart."""
    rows = []
    for path in sorted(table_text.RESULTS.glob("*/*/seed_*/inference_gap.json")):
        found = table_text.read(path)
        for subset, entry in found["by_subset"].items() if found["method"] == "chains" else ():
            run = "/".join(path.parts[-4:-1])
            median = f"{statistics.median(entry['values']):.1f}"
            cells = [subset, str(found["num_observations"]), _error(entry), median]
            rows.append([run, *cells, f"{entry['two_sample_accuracy']['mean']:.3f}", f"{entry['rhat_largest']:.2f}"])
    columns = ["run", "observed", "observations", "gap, nats", "median", "told apart", "largest R-hat"]
    return table_text.markdown(columns, rows)


def _error(entry: dict) -> str:
    return f"{entry['mean']:.2f} ± {entry['standard_error']:.2f}"


def _sizes(found: Sequence[dict], name: str, form: str) -> str:
    """Returns the means over runs that have a size, each with its standard error over observations where the runs have one.

    All seeds see the same observations: each observation's mean over seeds comes first.
    """

    def cell(size: str) -> str:
        entries = [f[name]["by_size"][size] for f in found if size in f[name]["by_size"]]
        if not isinstance(entries[0], dict):
            return format(sum(entries) / len(entries), form)
        means = [statistics.mean(values) for values in zip(*(entry["values"] for entry in entries), strict=True)]
        return f"{statistics.mean(means):{form}} ± {statistics.stdev(means) / len(means) ** 0.5:{form}}"

    return " / ".join(cell(size) for size in dict.fromkeys(size for f in found for size in f[name]["by_size"]))


def _paired(first: Sequence[float], other: Sequence[float]) -> str:
    differences = [a - b for a, b in zip(first, other, strict=True)]
    mean = sum(differences) / len(differences)
    variance = sum((d - mean) ** 2 for d in differences) / (len(differences) - 1)
    return f"{mean:.2f} ± {(variance / len(differences)) ** 0.5:.2f}"
