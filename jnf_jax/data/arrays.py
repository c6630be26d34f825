"""Bring your own data: a dict of numpy arrays, or an .npz file of them.

In a file each modality is an array `[N, *shape]` under its name, and the classes, where there are any, are under `labels`. The splits are drawn
at random, deterministic in the seed.
"""

import dataclasses
import pathlib
import zipfile
from collections.abc import Mapping

import numpy as np

from jnf_jax import configs
from jnf_jax import specs as specs_lib
from jnf_jax.data import source

LABELS = "labels"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(configs.Component):
    """Arrays from an .npz file.

    Attributes:
      path: of the file.
      specs: modality -> spec; shapes, likelihoods and ranges are checked against the arrays.
      seed: of the split.
      validation_fraction: share of the examples kept for validation.
      test_fraction: share of the examples kept for testing.
    """

    path: str = ""
    specs: Mapping[str, specs_lib.ModalitySpec] = dataclasses.field(default_factory=dict)
    seed: int = 0
    validation_fraction: float = 0.1
    test_fraction: float = 0.1


def build(config: Config, split: source.Split) -> source.Source:
    """Returns one split of the file.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if it is no .npz file, or its arrays do not fit the specs.
    """
    source.check_split(split)
    return splits(config.specs, *load(config.path), config=config)[split]


def load(path: str) -> tuple[dict[str, np.ndarray], np.ndarray | None]:
    """Returns the arrays and the labels (or None) of an .npz file; objects in it are refused."""
    if not pathlib.Path(path).is_file():
        raise FileNotFoundError(f"Expected an .npz file with one array a modality, got no file at {path!r}.")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (zipfile.BadZipFile, AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"Expected an .npz file of plain arrays at {path!r}: {error}") from error
    return arrays, arrays.pop(LABELS, None)


def splits(
    specs: specs_lib.Specs,
    arrays: Mapping[str, np.ndarray],
    labels: np.ndarray | None = None,
    *,
    config: Config | None = None,
) -> dict[source.Split, source.Source]:
    """Returns train, validation and test parts of arrays in memory.

    Args:
      specs: modality -> spec.
      arrays: modality -> `[N, *shape]`.
      labels: `[N]` int, or None.
      config: its seed and fractions.

    Raises:
      ValueError: if the arrays do not fit the specs, or there are too few examples for three parts.
    """
    config = config or Config()
    source.check(specs, arrays, labels)
    num = len(next(iter(arrays.values())))
    counts = [round(fraction * num) for fraction in (config.validation_fraction, config.test_fraction)]
    if min(counts) < 1 or sum(counts) >= num:
        raise ValueError(
            f"Expected fractions that leave an example for each of {source.SPLITS}, got {config.validation_fraction} and "
            f"{config.test_fraction} of {num} examples."
        )
    order = np.random.default_rng(config.seed).permutation(num)
    parts = np.split(order, [num - sum(counts), num - counts[1]])
    return {
        name: source.Source(
            specs=specs,
            arrays={k: np.asarray(v)[rows] for k, v in arrays.items()},
            labels=None if labels is None else np.asarray(labels)[rows],
        )
        for name, rows in zip(source.SPLITS, parts, strict=True)
    }
