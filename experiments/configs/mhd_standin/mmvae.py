"""MMVAE on the MHD stand-in, with the networks, the latent dimension, beta and the budget of steps of JNF.

    python -m experiments.train mhd_standin/mmvae --workdir runs/mhd_standin_mmvae [--quick]

K is 1: every modality is decoded from every other one's code at each draw, and 10 draws cost ten times as much.
"""

from experiments.configs import published
from experiments.configs.mhd_standin import jnf
from jnf_jax.models import mmvae

CONFIG = published.baseline(jnf.CONFIG, mmvae.Config, num_importance=1)
QUICK = published.baseline(jnf.QUICK, mmvae.Config, num_importance=1)
