"""CVAE on polydigits, with the networks, the latent dimension, beta and the budget of steps of JNF.

python -m experiments.train polydigits/cvae --workdir runs/cvae

A condition is drawn anew for every example.
"""

from experiments.configs import published
from experiments.configs.polydigits import jnf
from jnf_jax.models import cvae

CONFIG = published.baseline(jnf.CONFIG, cvae.Config)
