"""MVTCAE on the MHD stand-in, with the networks, the latent dimension, beta and the budget of steps of JNF.

    python -m experiments.train mhd_standin/mvtcae --workdir runs/mhd_standin_mvtcae [--quick]

alpha is the paper's for images, 5/6.
"""

from experiments.configs import published
from experiments.configs.mhd_standin import jnf
from jnf_jax.models import mvtcae

CONFIG = published.baseline(jnf.CONFIG, mvtcae.Config)
QUICK = published.baseline(jnf.QUICK, mvtcae.Config)
