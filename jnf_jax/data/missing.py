"""Any data set with modalities missing at random from its training and validation examples; the test examples stay complete.

Each modality of an example is missing with the same probability, independently; an example that would lose all keeps one, drawn at random.
"""

import dataclasses

import numpy as np

from jnf_jax import configs
from jnf_jax.data import linear_gaussian, source


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(configs.Component):
    """Data with missing modalities.

    Attributes:
      data: the complete data set.
      fraction: probability in [0, 1) that a modality is missing from an example.
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
      ValueError: if only complete examples are asked for and there is none.
    """
    data = configs.build(config.data, split)
    if split == "test":
        return data
    masks = draw(len(data), tuple(data.specs), config, source.SPLITS.index(split))
    data = dataclasses.replace(data, masks=masks)
    return data.complete() if config.complete_only else data


def draw(num: int, names: tuple[str, ...], config: Config, stream: int) -> dict[str, np.ndarray]:
    """Returns modality -> `[num]` bool, whether an example has it."""
    rng = np.random.default_rng([config.seed, stream])
    present = rng.random((num, len(names))) >= config.fraction
    kept = rng.integers(len(names), size=num)
    present[np.arange(num), kept] |= ~present.any(1)
    return dict(zip(names, present.T, strict=True))
