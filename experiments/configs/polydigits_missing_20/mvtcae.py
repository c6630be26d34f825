"""MVTCAE on polydigits whose training examples lack a fifth of their modalities, at random.

python -m experiments.train polydigits_missing_20/mvtcae --workdir runs/missing
"""

from experiments.configs import published
from experiments.configs.polydigits import mvtcae

CONFIG = published.incomplete(mvtcae.CONFIG, fraction=0.2)
