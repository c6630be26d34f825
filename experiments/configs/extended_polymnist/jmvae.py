"""JMVAE on extended PolyMNIST, a stand-in, with the networks, the latent dimension, beta and the budget of steps of JNF.

    python -m experiments.train extended_polymnist/jmvae --workdir runs/extended_polymnist_jmvae [--quick]

alpha is the paper's, 0.1.
"""

from experiments.configs import published
from experiments.configs.extended_polymnist import jnf
from jnf_jax.models import jmvae

CONFIG = published.baseline(jnf.CONFIG, jmvae.Config)
QUICK = published.baseline(jnf.QUICK, jmvae.Config)
