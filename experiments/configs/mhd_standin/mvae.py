"""MVAE on the MHD stand-in, with the networks, the latent dimension, beta and the budget of steps of JNF.

    python -m experiments.train mhd_standin/mvae --workdir runs/mhd_standin_mvae [--quick]

One random subset of each example joins the joint and the unimodal ELBOs.
"""

from experiments.configs import published
from experiments.configs.mhd_standin import jnf
from jnf_jax.models import mvae

CONFIG = published.baseline(jnf.CONFIG, mvae.Config)
QUICK = published.baseline(jnf.QUICK, mvae.Config)
