"""MoPoE on polydigits, with the networks, the latent dimension, beta and the budget of steps of JNF.

python -m experiments.train polydigits/mopoe --workdir runs/mopoe
"""

from experiments.configs import published
from experiments.configs.polydigits import jnf
from jnf_jax.models import mopoe

CONFIG = published.baseline(jnf.CONFIG, mopoe.Config)
