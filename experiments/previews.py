"""A small picture of a model in training, for the loggers: validation data, and what the model makes of them."""

from collections.abc import Callable

import jax
import numpy as np

from experiments import pictures
from jnf_jax import distributions, keys, subsets, types
from jnf_jax.data import source
from jnf_jax.models import base

_SIZE = 56  # pixels of a tile


def subsets_of(model: base.Model, stage: str) -> list[subsets.Subset]:
    """Returns the subsets that a picture of a stage shows: none before decoders are learnt, all modalities, and each alone in the last stage.

    Neither takes chains.
    """
    stages = [s for s in model.stages if s.loss is not None]
    position = [s.name for s in stages].index(stage)
    if not any("decoders" in s.trainable for s in stages[: position + 1]):
        return []
    names = tuple(model.specs)
    return [names, *((name,) for name in names)] if position == len(stages) - 1 else [names]


def make(
    model: base.Model, data: source.Source, stage: str, key: types.Array, *, num_observations: int = 6
) -> Callable[[types.Params], np.ndarray] | None:
    """Returns params -> picture `[H, W, 3]` in [0, 1] of a stage; None where there is nothing to see yet, or no example has every modality.

    A row is a modality. The first block shows observations, the second what is generated from all modalities, and the others what is
    generated from one.
    """
    chosen = subsets_of(model, stage)
    complete = np.flatnonzero(data.having(data.specs))
    if not chosen or not len(complete):
        return None
    part = data.select(complete[:num_observations])

    @jax.jit
    def generate(params, arrays):
        blocks = []
        for subset in chosen:
            observed = {name: arrays[name] for name in subset}
            z, _ = model.sample_posterior(params, keys.stream(key, subsets.label(subset)), observed, num_samples=1)
            decoded = model.decode(params, jax.tree.map(lambda leaf: leaf[0], z))
            blocks.append({name: distributions.mean(model.specs[name], value) for name, value in decoded.items()})
        return blocks

    def draw(params):
        real = {name: distributions.canonical(model.specs[name], x) for name, x in part.arrays.items()}
        return _compose(model, [real, *generate(params, dict(part.arrays))])

    return draw


def _compose(model: base.Model, blocks: list[types.Batch]) -> np.ndarray:
    rows = []
    for name, spec in model.specs.items():
        values = [np.asarray(block[name]) for block in blocks]
        limits = pictures.limits(spec, values[0])
        row = []
        for examples in values:
            row += [pictures.tile(spec, x, limits=limits, size=_SIZE) for x in examples] + [None]
        rows.append(row[:-1])
    return pictures.mosaic(rows)
