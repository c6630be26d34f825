"""JMVAE on polydigits, with the networks, the latent dimension, beta and the budget of steps of JNF.

python -m experiments.train polydigits/jmvae --workdir runs/jmvae

alpha is the paper's, 0.1.
"""

from experiments.configs import published
from experiments.configs.polydigits import jnf
from jnf_jax.models import jmvae

CONFIG = published.baseline(jnf.CONFIG, jmvae.Config)
