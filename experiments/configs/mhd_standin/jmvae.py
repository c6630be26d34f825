"""JMVAE on the MHD stand-in, with the networks, the latent dimension, beta and the budget of steps of JNF.

    python -m experiments.train mhd_standin/jmvae --workdir runs/mhd_standin_jmvae [--quick]

alpha is the paper's, 0.1.
"""

from experiments.configs import published
from experiments.configs.mhd_standin import jnf
from jnf_jax.models import jmvae

CONFIG = published.baseline(jnf.CONFIG, jmvae.Config)
QUICK = published.baseline(jnf.QUICK, jmvae.Config)
