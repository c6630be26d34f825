"""JNF on polydigits whose training examples lack a fifth of their modalities, at random.

python -m experiments.train polydigits_missing_20/jnf --workdir runs/missing
"""

from experiments.configs import published
from experiments.configs.polydigits import jnf

CONFIG = published.incomplete(jnf.CONFIG, fraction=0.2)
