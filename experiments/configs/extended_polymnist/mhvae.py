"""MHVAE on extended PolyMNIST, a stand-in, with the networks, the latent dimension, beta and the budget of steps of JNF.

python -m experiments.train extended_polymnist/mhvae --workdir runs/extended_polymnist_mhvae [--quick]

Two levels of codes have JNF's latent dimension each. One random subset of each example is trained at a step.
"""

from experiments.configs import published
from experiments.configs.extended_polymnist import jnf
from jnf_jax.models import mhvae

CONFIG = published.baseline(jnf.CONFIG, mhvae.Config)
QUICK = published.baseline(jnf.QUICK, mhvae.Config)
