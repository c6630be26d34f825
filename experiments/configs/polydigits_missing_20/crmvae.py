"""CRMVAE on polydigits whose training examples lack a fifth of their modalities, at random.

python -m experiments.train polydigits_missing_20/crmvae --workdir runs/missing
"""

from experiments.configs import published
from experiments.configs.polydigits import crmvae

CONFIG = published.incomplete(crmvae.CONFIG, fraction=0.2)
