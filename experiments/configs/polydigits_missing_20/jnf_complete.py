"""JNF on polydigits whose training examples lack a fifth of their modalities, at random; it trains on the complete examples alone.

python -m experiments.train polydigits_missing_20/jnf_complete --workdir runs/missing
"""

from experiments.configs import published
from experiments.configs.polydigits import jnf

CONFIG = published.incomplete(jnf.CONFIG, fraction=0.2, complete_only=True)
