"""Measures how far a run's posteriors are from those that its own decoders imply.

    jnf-jax inference-gap --workdir runs/toy [--num-observations 200] [..]

Writes `inference_gap.json` into the run's folder (one that was killed goes on where it was): `by_subset.<subset>.mean` and `.standard_error`, in nats, of KL(p_theta(z | x_S) || q(z | x_S)). In two
latent dimensions it is computed on a grid, and beside it the floor that stage 1 leaves: the gap of the joint posterior averaged over what the
unseen modalities could have been (training examples of the observation's class). Where posteriors see features g_j(x_j) alone, their
target is p_theta(z | g_j(x_j)): the average of p_theta(z | x'_j) over the validation images x' whose features lie closest.
In more dimensions the KL is bounded from both sides; `mean` is the middle.
"""

import dataclasses
import functools
import pathlib

import jax
import numpy as np
import rich.console
import rich.table
import tyro

from experiments import experiment, parts, run_folder
from jnf_jax import keys, subsets
from jnf_jax.data import source
from jnf_jax.metrics import codes, inference_gap
from jnf_jax.models import base
from jnf_jax.training import files, manifests, stages, writers


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Measures the inference gap of a run and writes inference_gap.json into its folder.

    Attributes:
      workdir: folder of the run.
      seed: of all draws.
      subsets: which subsets are observed, beside the full one: `all`; `sizes`, four of every size, or `sizes:N`; `random:N`, N of all of them.
      num_observations: test observations; on a grid all of them, by chains the first `num_sampled`.
      num_sampled: test observations where the gap is measured by chains.
      num_points: points of the grid along each axis.
      radius: of the grid.
      num_partners: training examples of an observation's class behind the floor.
      num_neighbours: validation images behind p_theta(z | g_j(x_j)).
      num_draws: draws of either posterior where the gap is measured by chains.
    """

    workdir: pathlib.Path
    seed: int = 0
    subsets: str = "all"
    num_observations: int = 200
    num_sampled: int = 20
    num_points: int = 401
    radius: float = 4.5
    num_partners: int = 100
    num_neighbours: int = 100
    num_draws: int = 1_000


def main() -> int:
    """Runs the script; returns its exit code."""
    arguments = tyro.cli(Arguments, prog="jnf-jax inference-gap")
    experiment.check_counts(arguments, "num_observations", "num_sampled", "num_points", least=2)
    experiment.check_counts(arguments, "num_partners", "num_neighbours", "num_draws")
    if not arguments.radius > 0:
        raise ValueError(f"Expected a --radius of more than 0, got {arguments.radius}.")
    config = run_folder.load(arguments.workdir)
    model, data = experiment.build(config)
    params = stages.load(model, arguments.workdir, data=data)
    if not codes.is_one(model, params):
        raise ValueError(f"Expected a model with one code, got one with several: {type(config.model).__module__}.")
    data = data.complete()
    with run_folder.lease(arguments.workdir), writers.Progress() as progress:
        path = arguments.workdir / "inference_gap.json"
        asked = {name: value for name, value in dataclasses.asdict(arguments).items() if name != "workdir"}
        found = parts.Parts(path.with_name("inference_gap.parts.json"), asked | {"weights": manifests.digest(params)})
        result = measure(arguments, model, params, data, found, progress)
        files.write_json(path, result | {"seconds": found.seconds})
        found.remove()
    show(result)
    print(f"written: {path}")
    return 0


def measure(arguments: Arguments, model: base.Model, params, data, found: parts.Parts, progress: writers.Progress) -> dict:
    """Returns the gap of every subset: exact with two latent dimensions, bounded with more."""
    plane = model.latent_dim == 2
    num = min(arguments.num_observations if plane else arguments.num_sampled, len(data["test"]))
    how = (
        {"method": "grid", "num_points": arguments.num_points}
        if plane
        else {"method": "chains", "num_draws": arguments.num_draws}
    )
    gap = functools.partial(on_grid if plane else by_chains, arguments, model, params, data)
    if plane and not _has_floor(data["test"].take(num), data["train"]):
        progress.say("no floor of stage 1: it needs classes, and training examples of every one")
    todo = [*subsets.choose(tuple(model.specs), arguments.subsets), tuple(model.specs)]
    by_subset = found.by_subset(todo, gap, progress)
    return how | {"num_observations": num, "by_subset": {subsets.label(subset): entry for subset, entry in by_subset.items()}}


def on_grid(arguments: Arguments, model: base.Model, params, data, subset: subsets.Subset) -> dict:
    """Returns the exact gap of one subset's posterior, of a model with two latent dimensions."""
    test = data["test"].take(arguments.num_observations)
    grid = inference_gap.make_grid(radius=arguments.radius, num=arguments.num_points)
    # equal observations have equal posteriors: each is tabulated once
    part, back = (test, np.arange(len(test))) if len(subset) > 1 else _distinct(test, subset[0])
    observed = {name: part.arrays[name] for name in subset}
    ours = inference_gap.model_posterior(model, params, observed, grid)
    truth = inference_gap.true_posterior(model, params, observed, grid)
    gap = inference_gap.kl_on_grid(truth, ours, grid)
    coarse, coarse_grid = inference_gap.coarser(truth, grid)
    rough = inference_gap.kl_on_grid(coarse, inference_gap.coarser(ours, grid)[0], coarse_grid)
    entry = {"given": "observation", **_summary(gap[back]), "grid_error": float(np.abs(gap - rough).max())}
    if len(subset) < len(model.specs) and _has_floor(test, data["train"]):
        floor = _floor(arguments, model, params, observed, part.labels, data["train"], grid)
        entry["floor"] = _summary(inference_gap.kl_on_grid(truth, floor, grid)[back])
    if model.project is not None and len(subset) == 1:
        target = _given_features(arguments, model, params, subset[0], part, data["validation"], grid)
        of_features = _summary(inference_gap.kl_on_grid(target, ours, grid)[back])
        entry = {"given": "features", **of_features, "given_observation": entry}
    return entry


def by_chains(arguments: Arguments, model: base.Model, params, data, subset: subsets.Subset) -> dict:
    """Returns bounds of the gap of one subset's posterior, of a model with any number of latent dimensions."""
    test = data["test"].take(arguments.num_sampled)
    key = keys.stream(keys.stream(jax.random.key(arguments.seed), "inference gap"), subsets.label(subset))
    observed = {name: test.arrays[name] for name in subset}
    gap = inference_gap.sampled_gap(model, params, key, observed, num_draws=arguments.num_draws)
    return {
        "given": "observation",
        **_summary((gap.lower + gap.upper) / 2),
        "lower": _summary(gap.lower),
        "upper": _summary(gap.upper),
        "two_sample_accuracy": _summary(gap.accuracy),
        "rhat_largest": float(gap.info.rhat.max()),
    }


def _has_floor(test: source.Source, train: source.Source) -> bool:
    """Returns whether there are training examples of the class of every observation."""
    return test.labels is not None and bool(np.isin(test.labels, train.labels).all())


def _floor(arguments, model, params, observed, labels, train: source.Source, grid) -> np.ndarray:
    rng = np.random.default_rng(arguments.seed)
    others = [name for name in model.specs if name not in observed]
    partners = []
    for label in labels:
        rows = np.flatnonzero(train.labels == label)
        partners.append({name: train.arrays[name][rng.choice(rows, arguments.num_partners)] for name in others})
    return inference_gap.averaged_joint_posterior(model, params, observed, partners, grid)


def _given_features(arguments, model, params, name: str, part, validation, grid) -> np.ndarray:
    kinds, back = _distinct(validation, name)
    table = inference_gap.true_posterior(model, params, {name: kinds.arrays[name]}, grid)
    features, others = (np.asarray(model.project(params, name, x.arrays[name])) for x in (part, validation))
    return inference_gap.average(table, back[inference_gap.neighbours(features, others, arguments.num_neighbours)])


def _distinct(data: source.Source, name: str) -> tuple[source.Source, np.ndarray]:
    first, back = inference_gap.distinct(data, name)
    labels = None if data.labels is None else data.labels[first]
    return source.Source(specs=data.specs, arrays={n: x[first] for n, x in data.arrays.items()}, labels=labels), back


def _summary(values: np.ndarray) -> dict:
    return {
        "mean": float(values.mean()),
        "standard_error": float(values.std(ddof=1) / np.sqrt(len(values))),
        "values": [round(float(v), 5) for v in values],
    }


def show(result: dict) -> None:
    """Prints the gap of every subset."""
    table = rich.table.Table(title="Inference gap, nats", title_justify="left")
    for column in ("given", "KL(p_theta || q)", "floor of stage 1", "bounds", "two-sample accuracy"):
        table.add_column(column, justify="left" if column == "given" else "right", overflow="fold")
    shown = lambda entry: f"{entry['mean']:.3f} ± {entry['standard_error']:.3f}" if entry else ""
    for subset, entry in result["by_subset"].items():
        bounds = f"{entry['lower']['mean']:.3f} to {entry['upper']['mean']:.3f}" if "lower" in entry else ""
        name = f"features of {subset}" if entry["given"] == "features" else subset
        table.add_row(name, shown(entry), shown(entry.get("floor")), bounds, shown(entry.get("two_sample_accuracy")))
    rich.console.Console().print(table)


if __name__ == "__main__":
    experiment.main(main)
