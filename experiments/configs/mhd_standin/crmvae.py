"""CRMVAE on the MHD stand-in, with the networks, the latent dimension, beta and the budget of steps of JNF.

python -m experiments.train mhd_standin/crmvae --workdir runs/mhd_standin_crmvae [--quick]
"""

from experiments.configs import published
from experiments.configs.mhd_standin import jnf
from jnf_jax.models import crmvae

CONFIG = published.baseline(jnf.CONFIG, crmvae.Config)
QUICK = published.baseline(jnf.QUICK, crmvae.Config)
