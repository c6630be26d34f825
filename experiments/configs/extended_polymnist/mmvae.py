"""MMVAE on extended PolyMNIST, a stand-in, with the networks, the latent dimension, beta and the budget of steps of JNF.

    python -m experiments.train extended_polymnist/mmvae --workdir runs/extended_polymnist_mmvae [--quick]

K is 1: every modality is decoded from every other one's code at each draw, and 10 draws cost ten times as much.
"""

from experiments.configs import published
from experiments.configs.extended_polymnist import jnf
from jnf_jax.models import mmvae

CONFIG = published.baseline(jnf.CONFIG, mmvae.Config, num_importance=1)
QUICK = published.baseline(jnf.QUICK, mmvae.Config, num_importance=1)
