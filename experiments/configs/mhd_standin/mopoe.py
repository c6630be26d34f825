"""MoPoE on the MHD stand-in, with the networks, the latent dimension, beta and the budget of steps of JNF.

python -m experiments.train mhd_standin/mopoe --workdir runs/mhd_standin_mopoe [--quick]
"""

from experiments.configs import published
from experiments.configs.mhd_standin import jnf
from jnf_jax.models import mopoe

CONFIG = published.baseline(jnf.CONFIG, mopoe.Config)
QUICK = published.baseline(jnf.QUICK, mopoe.Config)
