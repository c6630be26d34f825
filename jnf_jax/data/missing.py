"""Any data set with modalities missing at random from its training and validation examples; the test examples stay as they are.

Each modality that an example has is taken away with the same probability, independently; an example that would lose all keeps one, drawn at random.
"""

import dataclasses

import numpy as np

from jnf_jax import configs
from jnf_jax.data import linear_gaussian, source


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(configs.Component):
    """Data with missing modalities.

    Attributes:
      data: the data set, whose examples may lack modalities already.
      fraction: probability in [0, 1) that an example loses a modality that it has.
      seed: of what is missing.
      complete_only: whether the incomplete examples are dropped, to compare with complete cases alone.
    """

    data: configs.Component = linear_gaussian.Config()
    fraction: float = 0.2
    seed: int = 0
    complete_only: bool = False

    def __post_init__(self):
        super().__post_init__()
        if not 0 <= self.fraction < 1:
            raise ValueError(f"Expected a fraction in [0, 1), got {self.fraction}.")


def build(config: Config, split: source.Split) -> source.Source:
    """Returns one split.

    Raises:
      ValueError: if only complete examples are asked for and there is none, or no training example still has one of the modalities.
    """
    data = configs.build(config.data, split)
    if split == "test":
        return data
    masks = draw(data, config, source.SPLITS.index(split))
    if split == "train" and (never := [name for name, mask in masks.items() if not mask.any()]):
        raise ValueError(f"Expected a training example that still has modality {never[0]!r}, got none of {len(data)}.")
    data = dataclasses.replace(data, masks=masks)
    return data.complete() if config.complete_only else data


def draw(data: source.Source, config: Config, stream: int) -> dict[str, np.ndarray]:
    """Returns modality -> `[N]` bool, whether an example still has it."""
    rng = np.random.default_rng([config.seed, stream])
    num, names = len(data), tuple(data.specs)
    present = rng.random((num, len(names))) >= config.fraction
    kept = rng.integers(len(names), size=num)
    if data.masks:
        there = np.stack([data.masks.get(name, np.ones(num, bool)) for name in names], axis=1)
        kept = np.where(there, rng.random(there.shape), -1).argmax(1)
        present &= there
    present[np.arange(num), kept] |= ~present.any(1)
    return dict(zip(names, present.T, strict=True))
