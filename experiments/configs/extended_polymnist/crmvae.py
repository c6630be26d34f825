"""CRMVAE on extended PolyMNIST, a stand-in, with the networks, the latent dimension, beta and the budget of steps of JNF.

python -m experiments.train extended_polymnist/crmvae --workdir runs/extended_polymnist_crmvae [--quick]
"""

from experiments.configs import published
from experiments.configs.extended_polymnist import jnf
from jnf_jax.models import crmvae

CONFIG = published.baseline(jnf.CONFIG, crmvae.Config)
QUICK = published.baseline(jnf.QUICK, crmvae.Config)
