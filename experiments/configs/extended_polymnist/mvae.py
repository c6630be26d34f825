"""MVAE on extended PolyMNIST, a stand-in, with the networks, the latent dimension, beta and the budget of steps of JNF.

    python -m experiments.train extended_polymnist/mvae --workdir runs/extended_polymnist_mvae [--quick]

One random subset of each example joins the joint and the unimodal ELBOs.
"""

from experiments.configs import published
from experiments.configs.extended_polymnist import jnf
from jnf_jax.models import mvae

CONFIG = published.baseline(jnf.CONFIG, mvae.Config)
QUICK = published.baseline(jnf.QUICK, mvae.Config)
