"""Translated PolyMNIST: PolyMNIST's pictures, smaller digits that are shifted apart in every modality.

    m0 .. m4       28x28x3 uint8, Laplace(scale) or Gaussian on [0, 1]

It is generated from MNIST and PolyMNIST's own five pictures, which its archive does not hold: lay them under `$JNF_DATA_DIR/polymnist_pictures/` as
`m0`, `m1`, .. with any picture's ending. Digits are scaled bilinearly to 21x21, offsets uniform in 0..6 along each axis, binarised at 128
after scaling, the crop's colours inverted on them.
"""

import dataclasses

from jnf_jax.data import files, polymnist_family, source

MODALITIES = tuple(f"m{j}" for j in range(5))
_HINT = "They are PolyMNIST's five background pictures, named m0 to m4."


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(polymnist_family.Config):
    """Translated PolyMNIST."""


def build(config: Config, split: source.Split) -> source.Source:
    """Returns one split; the same for the same config, raw files and versions of the libraries that read them.

    Raises:
      ValueError: if the split is unknown.
      FileNotFoundError: if a raw file is missing.
    """
    pictures = {name: files.folder("polymnist_pictures", f"{name}.*", _HINT)[0].name for name in MODALITIES}
    return polymnist_family.load(config, split, pictures=pictures, folder="polymnist_pictures", translated=True)
