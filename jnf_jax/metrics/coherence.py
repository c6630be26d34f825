"""Coherence: does what was generated show the class of what was observed?

Conditional coherence is the share of test observations whose generated modality is classified as the observation's own class, one draw each,
averaged over all subsets of a size and all modalities outside them. Joint coherence is the share of draws of a density on the
latent space in which every modality is given the same class.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jnf_jax import distributions, subsets, types
from jnf_jax.data import source
from jnf_jax.metrics import classifiers as classifiers_lib
from jnf_jax.metrics import codes
from jnf_jax.models import base


class Draws(NamedTuple):
    """What one subset's posterior gave for every observation."""

    z: Any  # [S, N, D], or a pytree of such arrays
    info: types.Info  # [N] each


def draw(
    model: base.Model,
    params: types.Params,
    key: types.Array,
    data: source.Source,
    subset: subsets.Subset,
    *,
    num_samples: int,
    batch_size: int,
    on_batch: Callable[[int], None] = lambda done: None,
) -> Draws:
    """Returns draws for all observations, in batches of one shape: the last one is filled up and its filling dropped."""
    num = len(data)
    parts = []
    for index, start in enumerate(range(0, num, batch_size)):
        rows = np.arange(start, start + batch_size) % num
        observed = {name: data.arrays[name][rows] for name in subset}
        z, info = model.sample_posterior(params, jax.random.fold_in(key, index), observed, num_samples=num_samples)
        parts.append(jax.device_get((z, info)))
        on_batch(min(start + batch_size, num))
    z = codes.take(codes.concatenated([z for z, _ in parts], axis=1), np.s_[:, :num])
    return Draws(z, types.Info(*(np.concatenate(field)[:num] for field in zip(*(info for _, info in parts), strict=True))))


def judge_decoded(
    model: base.Model,
    params: types.Params,
    classifiers: classifiers_lib.Classifiers,
    classifier_params: types.Params,
    z: Any,
    *,
    batch_size: int = 500,
) -> dict[str, classifiers_lib.Judged]:
    """Returns modality -> the classes `[N]`, and the features, that its classifier sees in what each z, leaves `[N, D]`, decodes to."""
    num = codes.length(z)
    parts: dict[str, list[classifiers_lib.Judged]] = {name: [] for name in model.specs}
    for start in range(0, num, batch_size):
        rows = np.arange(start, start + min(batch_size, num)) % num
        for name, x in as_data(model, model.decode(params, codes.take(z, rows))).items():
            parts[name].append(classifiers_lib.judged(classifiers, classifier_params, name, x, batch_size=len(rows)))
    whole = lambda name: (np.concatenate(part)[:num] for part in zip(*parts[name], strict=True))
    return {name: classifiers_lib.Judged(*whole(name)) for name in parts}


def classes_of(judged: Mapping[str, classifiers_lib.Judged]) -> dict[str, np.ndarray]:
    """Returns modality -> the predicted classes `[N]`."""
    return {name: value.classes for name, value in judged.items()}


def as_data(model: base.Model, parameters: types.Batch) -> types.Batch:
    """Returns the likelihoods' means: the images that parameters stand for."""
    return {name: distributions.mean(model.specs[name], value) for name, value in parameters.items()}


def conditional(predicted: Mapping[str, np.ndarray], labels: np.ndarray, subset: subsets.Subset) -> dict[str, float]:
    """Returns target -> coherence for every modality outside `subset`."""
    return {name: float((predicted[name] == labels).mean()) for name in predicted if name not in subset}


def by_size(by_subset: Mapping[subsets.Subset, Mapping[str, float]]) -> dict[int, float]:
    """Returns size -> mean coherence over all subsets of that size and all targets outside them."""
    sizes = sorted({len(subset) for subset in by_subset})
    return {
        size: float(np.mean([v for subset, targets in by_subset.items() if len(subset) == size for v in targets.values()]))
        for size in sizes
    }


def joint(predicted: Mapping[str, np.ndarray] | Sequence[np.ndarray]) -> float:
    """Returns the share of draws to which every modality's classifier gives the same class; -1 is none."""
    classes = np.stack(list(predicted.values()) if isinstance(predicted, Mapping) else list(predicted))
    return float(((classes == classes[0]) & (classes >= 0)).all(axis=0).mean())
