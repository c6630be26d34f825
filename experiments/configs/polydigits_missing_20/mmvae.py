"""MMVAE on polydigits whose training examples lack a fifth of their modalities, at random.

python -m experiments.train polydigits_missing_20/mmvae --workdir runs/missing
"""

from experiments.configs import published
from experiments.configs.polydigits import mmvae

CONFIG = published.incomplete(mmvae.CONFIG, fraction=0.2)
