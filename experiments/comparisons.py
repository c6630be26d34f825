"""Pictures and numbers of several runs beside each other: posteriors in a latent plane, and what a projector keeps of an image."""

import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import matplotlib.pyplot as plt
import numpy as np

from experiments import classifiers as classifier_cache
from experiments import experiment, pictures, run_folder
from jnf_jax import distributions, keys, specs
from jnf_jax.data import source
from jnf_jax.metrics import classifiers, codes, coherence, inference_gap, reconstruction
from jnf_jax.models import base
from jnf_jax.training import stages, writers

_SIDE = 3  # columns at each side of an image that count as background
_LETTERS = "bcdefgh"  # of the rows below the data


class Run(NamedTuple):
    """A trained run."""

    name: str
    config: experiment.Config
    model: base.Model
    params: Any


def load(folders: Sequence[pathlib.Path]) -> tuple[list[Run], experiment.Splits]:
    """Returns runs and the data they were trained on.

    Raises:
      ValueError: if they were not trained on the same data.
    """
    runs = []
    for folder, name in zip(folders, run_folder.labels(folders), strict=True):
        config = run_folder.load(folder)
        model, data = experiment.build(config)
        params = stages.load(model, folder, data={"test": data["test"]})
        runs.append(Run(name, config, model, params))
        if config.data != runs[0].config.data:
            raise ValueError(f"Expected runs on the same data, got {runs[0].config.data} and {config.data}.")
    return runs, data


def latent_posteriors(
    runs: Sequence[Run], key, test: source.Source, *, num_shown: int = 4, num_draws: int = 8, num_scattered: int = 400
) -> plt.Figure:
    """Returns the paper's figure 2: data, then a row a run: posteriors of the first modality in the latent plane, and the second drawn from them.

    Raises:
      ValueError: if a latent space has not two dimensions, there are no classes, or more runs than letters.
    """
    for run in runs:
        if run.model.latent_dim != 2:
            raise ValueError(f"Expected latent spaces of 2 dimensions, got {run.model.latent_dim} in {run.name}.")
    if test.labels is None:
        raise ValueError("Expected a labelled data set, for observations of every class are shown, got one without labels.")
    if len(runs) > len(_LETTERS):
        raise ValueError(f"Expected at most {len(_LETTERS)} runs beside one another, got {len(runs)}.")
    first, second = tuple(test.specs)[:2]
    rows = np.concatenate([np.flatnonzero(test.labels == c)[: num_shown // 2] for c in np.unique(test.labels)])
    shown = {name: x[rows] for name, x in test.arrays.items()}
    figure = plt.figure(figsize=(13, 2.9 * (len(runs) + 1)), layout="constrained")
    top, *others = figure.subfigures(len(runs) + 1, 1, height_ratios=[0.8, *[1] * len(runs)])
    top.suptitle("(a) data: two views of one class, their sizes independent", fontsize=10, x=0.01, ha="left")
    axes = top.subplots(2, 16)
    for line, name in zip(axes, (first, second), strict=True):
        for axis, x in zip(line, test.arrays[name][:16], strict=True):
            axis.imshow(_tile(test.specs[name], distributions.canonical(test.specs[name], x)))
            axis.axis("off")
    grid = inference_gap.make_grid(radius=4.0, num=161)
    side = np.unique(grid.points[:, 0])
    for letter, run, part in zip(_LETTERS, runs, others, strict=False):
        part.suptitle(f"({letter}) {run.name}", fontsize=10, x=0.01, ha="left")
        left, right = part.subfigures(1, 2, width_ratios=[1, 2.2])
        axis = left.subplots()
        cloud, _ = run.model.sample_posterior(
            run.params, keys.stream(key, "cloud"), dict(test.take(2_000).arrays), num_samples=1
        )
        axis.scatter(*np.asarray(cloud[0]).T, s=2, c=np.where(test.labels[:2_000] == 1, "0.55", "0.8"), linewidths=0)
        observed = {first: shown[first]}
        z, _ = run.model.sample_posterior(run.params, keys.stream(key, "draws"), observed, num_samples=num_scattered)
        truth = np.exp(inference_gap.true_posterior(run.model, run.params, observed, grid)).reshape(len(rows), len(side), -1)
        for i in range(len(rows)):
            axis.scatter(*np.asarray(z[:, i]).T, s=2, color=f"C{i}", alpha=0.5, linewidths=0)
            axis.contour(side, side, truth[i].T, levels=[0.05 * truth[i].max()], colors="k", linewidths=0.6)
        axis.set(xlim=(-4, 4), ylim=(-4, 4), xticks=[], yticks=[], aspect="equal")
        images = coherence.as_data(run.model, run.model.decode(run.params, z[:num_draws]))[second]
        axes = right.subplots(len(rows), num_draws + 1)
        for i, line in enumerate(axes):
            row = [(first, distributions.canonical(test.specs[first], shown[first][i])), *((second, x) for x in images[:, i])]
            for axis, (name, x) in zip(line, row, strict=True):
                axis.imshow(_tile(test.specs[name], x))
                axis.set(xticks=[], yticks=[])
            for spine in line[0].spines.values():
                spine.set(color=f"C{i}", linewidth=2)
            for axis in line[1:]:
                axis.axis("off")
    return figure


def self_reconstruction(
    runs: Sequence[Run], key, data: experiment.Splits, modality: str, *, num_observations: int = 500, num_shown: int = 12
) -> tuple[plt.Figure, dict]:
    """Returns the paper's figure 3, one modality generated from itself, and what each run keeps of it.

    `agreement`: the share of draws that the modality's classifier gives the observation's class. `background_error`: root mean squared error, in units
    of an intensity in [0, 1], over the three columns at either side, where digits seldom reach; `background_error_of_the_mean`: that of
    the mean training image, what no knowledge of the observation gives.

    Raises:
      ValueError: if there is no such modality, or it is no image.
    """
    test = data["test"].complete().take(num_observations)
    images = [name for name, spec in test.specs.items() if reconstruction.is_image(spec.shape)]
    if modality not in images:
        raise ValueError(f"Expected a modality of {images}, the images, got {modality!r}.")
    spec = test.specs[modality]
    real = np.asarray(distributions.canonical(spec, test.arrays[modality]))
    with writers.Progress() as progress:
        judges, judge_params = classifier_cache.trained(runs[0].config, data, progress)
    mean = np.asarray(
        distributions.canonical(spec, data["train"].arrays[modality][data["train"].having((modality,))][:5_000])
    ).mean(0)
    result: dict = {
        "modality": modality,
        "num_observations": len(test),
        "background_error_of_the_mean": _background_error(real, np.broadcast_to(mean, real.shape)),
        "classifier_accuracy": float((classifiers.judged(judges, judge_params, modality, real).classes == test.labels).mean()),
        "by_run": {},
    }
    rows = [("data", [_tile(spec, x) for x in real[:num_shown]])]
    for run in runs:
        z, _ = run.model.sample_posterior(run.params, key, {modality: test.arrays[modality]}, num_samples=1)
        images = np.asarray(
            jax.device_get(coherence.as_data(run.model, run.model.decode(run.params, codes.take(z, 0)))[modality])
        )
        classes = classifiers.judged(judges, judge_params, modality, images).classes
        result["by_run"][run.name] = {
            "agreement": float((classes == test.labels).mean()),
            "background_error": _background_error(real, images),
        }
        rows.append((run.name, [_tile(spec, x) for x in images[:num_shown]]))
    return pictures.grid([("", rows)], title=f"{modality} generated from itself"), result


def _tile(spec: specs.ModalitySpec, x) -> np.ndarray:
    """Returns an image as a tile."""
    return pictures.tile(spec, np.asarray(x), limits=spec.support or (0.0, 1.0))


def _background_error(real: np.ndarray, images: np.ndarray) -> float:
    error = (images - real) ** 2
    return float(np.sqrt(np.concatenate([error[:, :, :_SIDE], error[:, :, -_SIDE:]], axis=2).mean()))
