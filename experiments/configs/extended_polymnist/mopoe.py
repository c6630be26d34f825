"""MoPoE on extended PolyMNIST, a stand-in, with the networks, the latent dimension, beta and the budget of steps of JNF.

python -m experiments.train extended_polymnist/mopoe --workdir runs/extended_polymnist_mopoe [--quick]
"""

from experiments.configs import published
from experiments.configs.extended_polymnist import jnf
from jnf_jax.models import mopoe

CONFIG = published.baseline(jnf.CONFIG, mopoe.Config)
QUICK = published.baseline(jnf.QUICK, mopoe.Config)
