"""MoPoE on polydigits whose training examples lack a fifth of their modalities, at random.

python -m experiments.train polydigits_missing_20/mopoe --workdir runs/missing
"""

from experiments.configs import published
from experiments.configs.polydigits import mopoe

CONFIG = published.incomplete(mopoe.CONFIG, fraction=0.2)
