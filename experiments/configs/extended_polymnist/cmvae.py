"""CMVAE on extended PolyMNIST, a stand-in, with the networks, the latent dimension, beta and the budget of steps of JNF.

python -m experiments.train extended_polymnist/cmvae --workdir runs/extended_polymnist_cmvae [--quick]

The shared and a private code have half of the latent dimensions each, so that decoders see as many as the others'.
There are 10 clusters, and K is 1.
"""

from experiments.configs import published
from experiments.configs.extended_polymnist import jnf
from jnf_jax.models import cmvae

CONFIG = published.baseline_with_private_codes(jnf.CONFIG, cmvae.Config)
QUICK = published.baseline_with_private_codes(jnf.QUICK, cmvae.Config)
