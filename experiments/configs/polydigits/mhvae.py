"""MHVAE on polydigits, with the networks, the latent dimension, beta and the budget of steps of JNF.

python -m experiments.train polydigits/mhvae --workdir runs/mhvae

Two levels of codes have JNF's latent dimension each. One random subset of each example is trained at a step.
"""

from experiments.configs import published
from experiments.configs.polydigits import jnf
from jnf_jax.models import mhvae

CONFIG = published.baseline(jnf.CONFIG, mhvae.Config)
