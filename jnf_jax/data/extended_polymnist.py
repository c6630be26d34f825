"""Extended PolyMNIST: PolyMNIST made with other pictures, a stand-in whose numbers are not comparable with published ones.

    m0 flowers   m1 milky way   m2 poppies   m3 tree   m4 woman       28x28x3 uint8, Laplace(scale) or Gaussian on [0, 1]

MNIST's digits over five of the backgrounds of the extended PolyMNIST (`$JNF_DATA_DIR/polymnist_backgrounds/`). MNIST's test digits make the test
part; a tenth of its training digits make the validation part and occur in no training example. The pictures are on all sides, as
in PolyMNIST.
"""

import dataclasses

from jnf_jax.data import polymnist_family, source

PICTURES = {
    "m0": "00flowers-19830_1280.jpg",
    "m1": "03milky-way-2695569_1280.jpg",
    "m2": "04poppies-174276_1280.jpg",
    "m3": "05tree-736885_1280.jpg",
    "m4": "06woman-570883_1280.jpg",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(polymnist_family.Config):
    """Extended PolyMNIST."""


def build(config: Config, split: source.Split) -> source.Source:
    """Returns one split; the same for the same config, raw files and versions of the libraries that read them.

    Raises:
      ValueError: if the split is unknown.
      FileNotFoundError: if a raw file is missing.
    """
    return polymnist_family.load(config, split, pictures=PICTURES, translated=False)
