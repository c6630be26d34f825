"""CVAE on the MHD stand-in, with the networks, the latent dimension, beta and the budget of steps of JNF.

python -m experiments.train mhd_standin/cvae --workdir runs/mhd_standin_cvae [--quick]

A condition is drawn anew for every example.
"""

from experiments.configs import published
from experiments.configs.mhd_standin import jnf
from jnf_jax.models import cvae

CONFIG = published.baseline(jnf.CONFIG, cvae.Config)
QUICK = published.baseline(jnf.QUICK, cvae.Config)
