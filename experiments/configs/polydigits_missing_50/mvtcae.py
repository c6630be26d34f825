"""MVTCAE on polydigits whose training examples lack half of their modalities, at random.

python -m experiments.train polydigits_missing_50/mvtcae --workdir runs/missing
"""

from experiments.configs import published
from experiments.configs.polydigits import mvtcae

CONFIG = published.incomplete(mvtcae.CONFIG, fraction=0.5)
