"""CVAE on extended PolyMNIST, a stand-in, with the networks, the latent dimension, beta and the budget of steps of JNF.

python -m experiments.train extended_polymnist/cvae --workdir runs/extended_polymnist_cvae [--quick]

A condition is drawn anew for every example.
"""

from experiments.configs import published
from experiments.configs.extended_polymnist import jnf
from jnf_jax.models import cvae

CONFIG = published.baseline(jnf.CONFIG, cvae.Config)
QUICK = published.baseline(jnf.QUICK, cvae.Config)
