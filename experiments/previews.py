"""A small picture of a model in training, for the loggers: validation data, and what the model makes of them."""

from collections.abc import Callable

import jax
import numpy as np

from experiments import pictures
from jnf_jax import distributions, keys, subsets, types
from jnf_jax.data import source
from jnf_jax.models import base

_GAP = 3  # pixels between blocks


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
    """Returns params -> picture `[H, W, 3]` in [0, 1] of a stage; None where there is nothing to see yet.

    A row is a modality. The first block shows observations, the second what is generated from all modalities, and the others what is
    generated from one.
    """
    chosen = subsets_of(model, stage)
    if not chosen:
        return None
    part = data.complete().take(num_observations)

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
    tiles = [
        {name: [pictures.as_image(spec, x) for x in np.asarray(block[name])] for name, spec in model.specs.items()}
        for block in blocks
    ]
    sizes = [tile.shape for block in tiles for row in block.values() for tile in row]
    height, width = (max(size[axis] for size in sizes) + 1 for axis in (0, 1))
    num = len(next(iter(tiles[0].values())))
    canvas = np.ones((height * len(model.specs), (width * num + _GAP) * len(tiles), 3))
    for b, block in enumerate(tiles):
        for r, row in enumerate(block.values()):
            for c, tile in enumerate(row):
                top, left = r * height, b * (width * num + _GAP) + c * width
                canvas[top : top + tile.shape[0], left : left + tile.shape[1]] = tile
    return canvas
