"""JNF on polydigits whose training examples lack half of their modalities, at random; it trains on the complete examples alone.

python -m experiments.train polydigits_missing_50/jnf_complete --workdir runs/missing
"""

from experiments.configs import published
from experiments.configs.polydigits import jnf

CONFIG = published.incomplete(jnf.CONFIG, fraction=0.5, complete_only=True)
