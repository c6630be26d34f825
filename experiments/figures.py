"""Draws a run: loss curves, latent space, coherence by subset size, chains, and every modality from every subset.

jnf-jax figures --workdir runs/demo
jnf-jax figures --workdir runs/demo --beside runs/jnf_cl runs/jnf_dcca

With `--beside`, runs on the same data are compared instead: their posteriors where the latent space is a plane, else what they keep of
a modality generated from itself.
"""

import dataclasses
import json
import pathlib

import jax
import matplotlib.pyplot as plt
import numpy as np
import tyro

from experiments import comparisons, experiment, pictures
from jnf_jax import distributions, keys, subsets
from jnf_jax.data import source
from jnf_jax.metrics import codes as codes_lib
from jnf_jax.metrics import coherence
from jnf_jax.models import base
from jnf_jax.training import checkpoint, stages

LAST = "any_to_any"  # written after all others
_MOST_SUBSETS = 30  # proper ones in a picture


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
    config = experiment.load(arguments.workdir)
    model, data = experiment.build(config)
    params = stages.load(model, arguments.workdir)
    folder = arguments.workdir / "figures"
    folder.mkdir(exist_ok=True)
    key = jax.random.key(arguments.seed)
    if arguments.beside:
        return compare(arguments, folder, key)
    figures = {
        "losses": losses(arguments.workdir / "metrics.jsonl"),
        "latent_space": latent_space(model, params, keys.stream(key, "latent"), data["test"].take(arguments.num_latent)),
    }
    evaluation = arguments.workdir / "evaluation.json"
    if evaluation.exists() and "coherence" in (result := json.loads(evaluation.read_text())):
        figures["coherence"] = coherence_by_size(result)
    if len(model.specs) > 2 and hasattr(config.model, "sampler"):
        figures["chains"] = chains(config, params, keys.stream(key, "chains"), data["test"].take(arguments.num_traced))
    figures[LAST] = any_to_any(model, params, keys.stream(key, "any to any"), data["test"])
    for name, figure in figures.items():
        _save(figure, folder / f"{name}.png")
    return 0


def _save(figure: plt.Figure, path: pathlib.Path) -> None:
    """Writes a picture so that nobody sees half of it."""
    temporary = path.with_suffix(".tmp")
    figure.savefig(temporary, dpi=130, format="png")
    temporary.replace(path)
    plt.close(figure)
    print(f"picture: {path}")


def compare(arguments: Arguments, folder: pathlib.Path, key) -> int:
    """Draws this run and others beside each other."""
    runs, data = comparisons.load([arguments.workdir, *arguments.beside])
    if runs[0].model.latent_dim == 2:
        name, figure = "posteriors", comparisons.latent_posteriors(runs, key, data["test"])
    else:
        modality = arguments.modality or next(iter(runs[0].model.specs))
        name = "self_reconstruction"
        figure, result = comparisons.self_reconstruction(runs, key, data, modality)
        checkpoint.write_json(folder / f"{name}.json", result)
        print(json.dumps(result, indent=1))
    _save(figure, folder / f"{name}.png")
    return 0


def losses(path: pathlib.Path) -> plt.Figure:
    """Returns the loss of each stage over its steps."""
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    names = list(dict.fromkeys(row["stage"] for row in rows)) or ["no stage trained here"]
    figure, axes = plt.subplots(1, len(names), figsize=(4.5 * len(names), 3.2), squeeze=False, layout="constrained")
    for axis, name in zip(axes[0], names, strict=True):
        mine = [row for row in rows if row["stage"] == name]
        axis.plot([r["step"] for r in mine], [r["loss"] for r in mine], label="training")
        checked = [r for r in mine if "validation_loss" in r]
        axis.plot([r["step"] for r in checked], [r["validation_loss"] for r in checked], "o-", label="validation")
        if mine:
            tail = [r["loss"] for r in mine[len(mine) // 10 :]] + [r["validation_loss"] for r in checked]
            margin = 0.05 * (max(tail) - min(tail)) + 1e-9
            axis.set_ylim(min(tail) - margin, max(tail) + margin)
        axis.set(title=f"stage {name}", xlabel="step", ylabel="loss, nats")
        axis.legend()
    return figure


def any_to_any(model: base.Model, params, key, test: source.Source, *, num_observations: int = 12) -> plt.Figure:
    """Returns one grid: test observations, then each modality drawn from every subset, or from some of every size where there are many."""
    part = test.take(num_observations)
    specs = model.specs
    real = {name: np.asarray(distributions.canonical(specs[name], x)) for name, x in part.arrays.items()}
    blocks = [("test data", [[pictures.as_image(spec, x) for x in real[name]] for name, spec in specs.items()])]
    chosen = subsets.choose(tuple(specs), "all" if len(specs) < 6 else f"sizes:{max(_MOST_SUBSETS // (len(specs) - 1), 1)}")
    for subset in [*chosen, tuple(specs)]:
        observed = {name: part.arrays[name] for name in subset}
        z, _ = model.sample_posterior(params, keys.stream(key, subsets.label(subset)), observed, num_samples=1)
        images = coherence.as_data(model, model.decode(params, codes_lib.take(z, 0)))
        rows = [[pictures.as_image(spec, x) for x in np.asarray(images[name])] for name, spec in specs.items()]
        blocks.append((f"from {subsets.label(subset)}", rows))
    figure = _side_by_side(blocks)
    if len(chosen) < (every := 2 ** len(specs) - 2):
        figure.suptitle(f"{len(chosen)} of {every} subsets, evenly spaced within each size", fontsize=11)
    return figure


def _side_by_side(blocks, *, columns: int = 4) -> plt.Figure:
    """Returns blocks of rows of images in a table, each under its name."""
    rows = -(-len(blocks) // columns)
    height = max(1.45, 0.3 * len(blocks[0][1]))
    figure, axes = plt.subplots(rows, columns, figsize=(3.6 * columns, height * rows), squeeze=False, layout="constrained")
    for axis in axes.flat:
        axis.axis("off")
    for axis, (name, block) in zip(axes.flat, blocks, strict=False):
        height = max(image.shape[0] for row in block for image in row)
        width = max(image.shape[1] for row in block for image in row)
        canvas = np.ones((len(block) * (height + 1), len(block[0]) * (width + 1), 3))
        for r, row in enumerate(block):
            for c, image in enumerate(row):
                top, left = r * (height + 1), c * (width + 1)
                canvas[top : top + image.shape[0], left : left + image.shape[1]] = image
        axis.imshow(canvas, interpolation="nearest")
        axis.set_title(name, fontsize=9)
    return figure


def latent_space(model: base.Model, params, key, test: source.Source) -> plt.Figure:
    """Returns the first two principal components of codes, by class: the joint posterior's, and each modality's."""
    names = tuple(model.specs)
    codes = {}
    for subset in (names, *((name,) for name in names)):
        observed = {name: test.arrays[name] for name in subset}
        z, _ = model.sample_posterior(params, keys.stream(key, subsets.label(subset)), observed, num_samples=1)
        codes["all" if subset == names else subsets.label(subset)] = codes_lib.as_array(codes_lib.take(z, 0))
    centre = codes["all"].mean(0)
    _, _, directions = np.linalg.svd(codes["all"] - centre, full_matrices=False)
    columns = min(len(codes), 6)
    rows = -(-len(codes) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(2.6 * columns, 2.8 * rows), layout="constrained", sharex=True, sharey=True, squeeze=False
    )
    for axis in axes.flat[len(codes) :]:
        axis.axis("off")
    for axis, (name, z) in zip(axes.flat, codes.items(), strict=False):
        flat = (z - centre) @ directions[:2].T
        colours = test.labels if test.labels is not None else "C0"
        axis.scatter(*flat.T if flat.shape[1] > 1 else (flat[:, 0], 0 * flat[:, 0]), c=colours, s=3, cmap="tab10")
        axis.set_title(f"z given {name}", fontsize=9)
    return figure


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
        axis.set(title=f"#{i}: R-hat {float(info.rhat[i]):.3f}, ESS {float(info.ess[i]):.0f}", xlabel="draw")
        axis.title.set_fontsize(9)
    axes[0][0].set_ylabel(f"log q(z | {', '.join(subset)}) + const")
    return figure


if __name__ == "__main__":
    experiment.main(main)
