"""MMVAE on polydigits whose training examples lack half of their modalities, at random.

python -m experiments.train polydigits_missing_50/mmvae --workdir runs/missing
"""

from experiments.configs import published
from experiments.configs.polydigits import mmvae

CONFIG = published.incomplete(mmvae.CONFIG, fraction=0.5)
