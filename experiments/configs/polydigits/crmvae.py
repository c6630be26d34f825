"""CRMVAE on polydigits, with the networks, the latent dimension, beta and the budget of steps of JNF.

python -m experiments.train polydigits/crmvae --workdir runs/crmvae
"""

from experiments.configs import published
from experiments.configs.polydigits import jnf
from jnf_jax.models import crmvae

CONFIG = published.baseline(jnf.CONFIG, crmvae.Config)
