"""MVAE on polydigits whose training examples lack a fifth of their modalities, at random.

python -m experiments.train polydigits_missing_20/mvae --workdir runs/missing
"""

from experiments.configs import published
from experiments.configs.polydigits import mvae

CONFIG = published.incomplete(mvae.CONFIG, fraction=0.2)
