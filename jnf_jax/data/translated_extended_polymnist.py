"""Translated extended PolyMNIST: smaller digits, shifted apart in every modality, over the extended PolyMNIST's pictures. A stand-in.

    m0 flowers   m1 milky way   m2 poppies   m3 tree   m4 woman       28x28x3 uint8, Laplace(scale) or Gaussian on [0, 1]

Made as Translated PolyMNIST is: digits scaled bilinearly to 21x21, offsets uniform in 0..6 along each axis, binarised at 128 after scaling.
"""

import dataclasses

from jnf_jax.data import extended_polymnist, polymnist_family, source


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(polymnist_family.Config):
    """Translated extended PolyMNIST."""


def build(config: Config, split: source.Split) -> source.Source:
    """Returns one split; the same for the same config, raw files and versions of the libraries that read them.

    Raises:
      ValueError: if the split is unknown.
      FileNotFoundError: if a raw file is missing.
    """
    return polymnist_family.load(config, split, pictures=extended_polymnist.PICTURES, translated=True)
