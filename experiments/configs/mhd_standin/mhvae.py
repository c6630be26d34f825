"""MHVAE on the MHD stand-in, with the networks, the latent dimension, beta and the budget of steps of JNF.

python -m experiments.train mhd_standin/mhvae --workdir runs/mhd_standin_mhvae [--quick]

Two levels of codes have JNF's latent dimension each. One random subset of each example is trained at a step.
"""

from experiments.configs import published
from experiments.configs.mhd_standin import jnf
from jnf_jax.models import mhvae

CONFIG = published.baseline(jnf.CONFIG, mhvae.Config)
QUICK = published.baseline(jnf.QUICK, mhvae.Config)
