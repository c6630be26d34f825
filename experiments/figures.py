"""Draws a run: loss curves, latent space, coherence by subset size, chains, and every modality from every subset.

jnf-jax figures --workdir runs/demo
jnf-jax figures --workdir runs/demo --beside runs/jnf_cl runs/jnf_dcca

With `--beside`, runs on the same data are compared instead: their posteriors where the latent space is a plane, else what they keep of
a modality generated from itself.
"""

import dataclasses
import json
import pathlib
from collections.abc import Mapping

import jax
import matplotlib.pyplot as plt
import numpy as np
import tyro

from experiments import comparisons, experiment, parts, pictures, run_folder
from jnf_jax import distributions, keys, subsets
from jnf_jax.data import source
from jnf_jax.metrics import codes as codes_lib
from jnf_jax.metrics import coherence
from jnf_jax.models import base
from jnf_jax.training import files, stages

LAST = "any_to_any"  # written after all others
_DPI = 160


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Draws a run into figures/ of its folder.

    Attributes:
      workdir: folder of the run.
      num_latent: test observations in the latent space's picture.
      num_traced: observations whose chains are drawn.
      seed: of all draws.
      beside: folders of runs to compare this one with.
      modality: the one generated from itself in a comparison; the first where not given.
    """

    workdir: pathlib.Path
    num_latent: int = 1_000
    num_traced: int = 4
    seed: int = 0
    beside: tuple[pathlib.Path, ...] = ()
    modality: str | None = None


def main() -> int:
    """Runs the script; returns its exit code."""
    arguments = tyro.cli(Arguments, prog="jnf-jax figures")
    experiment.check_counts(arguments, "num_latent", "num_traced")
    if arguments.modality is not None and not arguments.beside:
        raise ValueError("Expected --beside with --modality, which says what is compared, got none.")
    config = run_folder.load(arguments.workdir)
    model, data = experiment.build(config)
    params = stages.load(model, arguments.workdir, data={"test": data["test"]})
    test = data["test"].complete()
    folder = arguments.workdir / "figures"
    folder.mkdir(exist_ok=True)
    key = jax.random.key(arguments.seed)
    if arguments.beside:
        return compare(arguments, folder, key)
    figures = {
        "losses": losses(run_folder.metrics(arguments.workdir)),
        "latent_space": latent_space(model, params, keys.stream(key, "latent"), test.take(arguments.num_latent)),
    }
    evaluation = arguments.workdir / "evaluation.json"
    if "coherence" in (result := parts.known(evaluation)):
        figures["coherence"] = coherence_by_size(result)
    if len(model.specs) > 2 and hasattr(config.model, "sampler"):
        figures["chains"] = chains(config, params, keys.stream(key, "chains"), test.take(arguments.num_traced))
    figures[LAST] = any_to_any(model, params, keys.stream(key, "any to any"), test)
    for name, figure in figures.items():
        _save(figure, folder / f"{name}.png")
    return 0


def _save(figure: plt.Figure, path: pathlib.Path) -> None:
    """Writes a picture so that nobody sees half of it."""
    temporary = path.with_suffix(".tmp")
    figure.savefig(temporary, dpi=_DPI, format="png")
    temporary.replace(path)
    plt.close(figure)
    print(f"picture: {path}")


def compare(arguments: Arguments, folder: pathlib.Path, key) -> int:
    """Draws this run and others beside each other."""
    runs, data = comparisons.load([arguments.workdir, *arguments.beside])
    if all(run.model.latent_dim == 2 and codes_lib.is_one(run.model, run.params) for run in runs):
        name, figure = "posteriors", comparisons.latent_posteriors(runs, key, data["test"].complete())
    else:
        modality = arguments.modality or next(iter(runs[0].model.specs))
        name = "self_reconstruction"
        figure, result = comparisons.self_reconstruction(runs, key, data, modality)
        files.write_json(folder / f"{name}.json", result)
        print(json.dumps(result, indent=1))
    _save(figure, folder / f"{name}.png")
    return 0


def losses(rows: list[dict]) -> plt.Figure:
    """Returns the loss of each stage over its steps, and below it the terms that it is made of."""
    names = list(dict.fromkeys(row["stage"] for row in rows)) or ["no stage trained here"]
    figure, axes = plt.subplots(2, len(names), figsize=(5 * len(names), 6), squeeze=False, layout="constrained", sharex="col")
    for (top, bottom), name in zip(axes.T, names, strict=True):
        mine = [row for row in rows if row["stage"] == name]
        _curve(top, mine, "loss", label="training")
        _curve(top, mine, "validation_loss", label="validation", marker="o", markersize=3)
        for term in sorted({key for row in mine for key in row} - _NO_TERMS):
            _curve(bottom, mine, term, label=_NAMES.get(term, term))
        top.set(title=f"stage {name}", ylabel="loss, nats")
        bottom.set(xlabel="step", ylabel="terms, nats")
        bottom.xaxis.get_major_locator().set_params(integer=True)
        for axis in (top, bottom):
            _fit_to_tail(axis, len(mine))
            if axis.lines:
                axis.legend(fontsize=8)
            elif axis is bottom:
                axis.set_visible(False)  # a loss of one term
                top.tick_params(labelbottom=True)
                top.set_xlabel("step")
    return figure


_NAMES = {"kl": "KL from the prior", "elbo": "ELBO"}
_NO_TERMS = {"stage", "step", "time", "seconds", "loss", "validation_loss", "gradient_norm", "learning_rate"}


def _curve(axis: plt.Axes, rows: list[dict], name: str, **style) -> None:
    """Draws a column of the metrics, where it was written."""
    points = [(row["step"], row[name]) for row in rows if row.get(name) is not None]
    if points:
        axis.plot(*zip(*points, strict=True), **style)


def _fit_to_tail(axis: plt.Axes, num_rows: int) -> None:
    """Lets the first tenth of the curves leave the picture, so that the rest is seen."""
    curves = [np.asarray(line.get_ydata(), float) for line in axis.lines]
    tail = np.concatenate([y[len(y) // 10 if len(y) == num_rows else 0 :] for y in curves]) if curves else np.empty(0)
    tail = tail[np.isfinite(tail)]
    if tail.size:
        margin = 0.05 * np.ptp(tail) + 1e-9
        axis.set_ylim(tail.min() - margin, tail.max() + margin)


def any_to_any(model: base.Model, params, key, test: source.Source, *, num_observations: int = 12) -> plt.Figure:
    """Returns one grid: test observations, then each modality drawn from every subset, or from some of every size where they are many."""
    part = test.take(num_observations)
    specs = model.specs
    canonical = lambda name, x: np.asarray(distributions.canonical(specs[name], x))
    scales = {name: pictures.limits(spec, canonical(name, test.take(500).arrays[name])) for name, spec in specs.items()}
    real = {name: canonical(name, x) for name, x in part.arrays.items()}
    see = lambda name, x, truth=None: pictures.tile(specs[name], x, limits=scales[name], truth=truth, size=_TILE)
    blocks = [("test data", [[see(name, x) for x in real[name]] for name in specs])]
    for subset in _shown(tuple(specs)):
        observed = {name: part.arrays[name] for name in subset}
        z, _ = model.sample_posterior(params, keys.stream(key, subsets.label(subset)), observed, num_samples=1)
        images = coherence.as_data(model, model.decode(params, codes_lib.take(z, 0)))
        rows = [[see(name, *pair) for pair in zip(np.asarray(images[name]), real[name], strict=True)] for name in specs]
        blocks.append((f"from {' + '.join(subset)}", rows))
    return _side_by_side(blocks, [pictures.caption(name, spec, scales[name]) for name, spec in specs.items()])


def _shown(names: tuple[str, ...], *, most: int = 31) -> list[subsets.Subset]:
    """Returns every subset but the empty one; of more than `most` about as many, evenly from every size."""
    chosen = []
    for size in range(1, len(names) + 1):
        found = subsets.of_size(names, size)
        num = len(found) if 2 ** len(names) - 1 <= most else min(len(found), max(1, most // len(names)))
        chosen += [found[i] for i in np.linspace(0, len(found) - 1, num).round().astype(int)]
    return chosen


_TILE = 80  # pixels of a tile of the large grid


def _side_by_side(blocks, captions: list[str], *, columns: int = 4) -> plt.Figure:
    """Returns blocks of rows of tiles in a table, each under its name; the rows' captions stand at the left of each line."""
    columns = min(columns, len(blocks))
    lines = -(-len(blocks) // columns)
    inch = (_TILE + 4) / _DPI
    width, height = inch * len(blocks[0][1][0]), inch * len(captions)
    margin = 0.3 + 0.075 * max(len(line) for caption in captions for line in caption.split("\n"))
    size = (margin + columns * (width + 0.12), lines * (height + 0.3) + 0.05)
    figure = plt.figure(figsize=size)
    for i, (name, block) in enumerate(blocks):
        line, column = divmod(i, columns)
        left, bottom = margin + column * (width + 0.12), size[1] - (line + 1) * (height + 0.3)
        axis = figure.add_axes((left / size[0], bottom / size[1], width / size[0], height / size[1]))
        axis.imshow(pictures.mosaic(block), aspect="auto", interpolation="antialiased")
        axis.set_title(name, fontsize=10, pad=3)
        axis.axis("off")
        for row, caption in enumerate(captions if column == 0 else []):
            y = (bottom + height - inch * (row + 0.5)) / size[1]
            figure.text((left - 0.08) / size[0], y, caption, fontsize=8, ha="right", va="center", linespacing=1.1)
    return figure


def latent_space(model: base.Model, params, key, test: source.Source) -> plt.Figure:
    """Returns the first two principal components of codes by class, the joint posterior's and each modality's, and of draws from nothing."""
    names = tuple(model.specs)
    codes = {}
    for subset in (names, *((name,) for name in names)):
        observed = {name: test.arrays[name] for name in subset}
        z, _ = model.sample_posterior(params, keys.stream(key, subsets.label(subset)), observed, num_samples=1)
        codes["codes of all modalities" if subset == names else f"codes of {subset[0]}"] = codes_lib.as_array(
            codes_lib.take(z, 0)
        )
    drawn = codes_lib.as_array(model.sample_prior(params, keys.stream(key, "prior"), num_samples=len(test)))
    fitted = isinstance(params, Mapping) and bool(jax.tree.leaves(params.get("marginal")))
    if fitted and model.prior_log_density is None:
        codes["draws of the prior N(0, I)"] = np.asarray(jax.random.normal(keys.stream(key, "normal"), drawn.shape))
    codes["draws of the fitted marginal" if fitted else "draws of the prior"] = drawn
    first = next(iter(codes.values()))
    centre = first.mean(0)
    _, spread, directions = np.linalg.svd(first - centre, full_matrices=False)
    columns = min(4, len(codes))
    lines = -(-len(codes) // columns)
    figure, axes = plt.subplots(
        lines, columns, figsize=(3 * columns, 3 * lines), layout="constrained", sharex=True, sharey=True, squeeze=False
    )
    for axis in axes.flat[len(codes) :]:
        axis.set_visible(False)
    for axis, (name, z) in zip(axes.flat, codes.items(), strict=False):
        plane = (z - centre) @ directions[:2].T
        plane = plane if plane.shape[1] > 1 else np.column_stack([plane, 0 * plane])
        _scatter(axis, plane, None if name.startswith("draws") else test.labels)
        axis.set_title(name, fontsize=9)
    share = spread[:2] ** 2 / (spread**2).sum()
    figure.supxlabel(f"first principal component ({share[0]:.0%} of the variance)", fontsize=9)
    figure.supylabel(f"second ({share[1]:.0%})" if len(share) > 1 else "", fontsize=9)
    if test.labels is not None and len(np.unique(test.labels)) <= 20:
        figure.legend(
            *axes.flat[0].get_legend_handles_labels(), title="class", loc="outside right upper", markerscale=3, fontsize=8
        )
    return figure


def _scatter(axis: plt.Axes, plane: np.ndarray, labels: np.ndarray | None) -> None:
    """Draws points, each class in a colour of its own, or all grey."""
    if labels is None:
        axis.scatter(*plane.T, s=4, color="0.45", linewidths=0)
        return
    classes = np.unique(labels)
    if len(classes) > 20:
        axis.scatter(*plane.T, s=4, c=labels, cmap="viridis", linewidths=0)
        return
    for colour, label in zip(plt.get_cmap("tab10" if len(classes) <= 10 else "tab20").colors, classes, strict=False):
        axis.scatter(*plane[labels == label].T, s=4, color=colour, linewidths=0, label=str(label))


def coherence_by_size(result: dict) -> plt.Figure:
    """Returns coherence against the number of observed modalities, the mean and every subset."""
    figure, axis = plt.subplots(figsize=(4.5, 3.4), layout="constrained")
    for subset, targets in result["coherence"]["by_subset"].items():
        axis.plot(subset.count("+") + 1, np.mean(list(targets.values())), "o", color="C0", alpha=0.35, markersize=4)
    sizes = result["coherence"]["by_size"]
    axis.plot([int(s) for s in sizes], list(sizes.values()), "o-", color="C0", label="mean over subsets")
    axis.axhline(
        np.mean(list(result["classifier_accuracy"].values())), color="C7", linestyle="--", label="classifiers on real data"
    )
    axis.set(xlabel="observed modalities", ylabel="coherence", xticks=[int(s) for s in sizes], ylim=(0, 1.02))
    axis.legend(loc="lower right")
    return figure


def chains(config: experiment.Config, params, key, test: source.Source, *, num_draws: int = 200) -> plt.Figure:
    """Returns traces of the log density along the chains of the first two modalities' product."""
    sampler = getattr(config.model, "sampler", None)
    num_chains = 4
    if sampler is not None:
        sampler = dataclasses.replace(sampler, num_chains=num_chains, thinning=1, min_iterations=1)
        config = dataclasses.replace(config, model=dataclasses.replace(config.model, sampler=sampler))
    model, _ = experiment.build(config)
    subset = tuple(model.specs)[:2]
    observed = {name: test.arrays[name] for name in subset}
    z, info = model.sample_posterior(params, key, observed, num_samples=num_chains * num_draws)
    traces = np.asarray(model.posterior_log_density(params, observed, z))[::-1].reshape(num_draws, num_chains, -1)
    figure, axes = plt.subplots(1, len(test), figsize=(3.2 * len(test), 2.6), layout="constrained", squeeze=False)
    for i, axis in enumerate(axes[0]):
        axis.plot(traces[:, :, i], linewidth=0.7)
        axis.set(title=f"test example {i}: R-hat {float(info.rhat[i]):.3f}, ESS {float(info.ess[i]):.0f}", xlabel="draw")
        axis.title.set_fontsize(8)
    axes[0][0].set_ylabel(f"log q(z | {', '.join(subset)}) + const")
    return figure


if __name__ == "__main__":
    experiment.main(main)
