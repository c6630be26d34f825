"""DMVAE on extended PolyMNIST, a stand-in, with the networks, the latent dimension, beta and the budget of steps of JNF.

python -m experiments.train extended_polymnist/dmvae --workdir runs/extended_polymnist_dmvae [--quick]

The shared and a private code have half of the latent dimensions each, so that decoders see as many as the others'.
"""

from experiments.configs import published
from experiments.configs.extended_polymnist import jnf
from jnf_jax.models import dmvae

CONFIG = published.baseline_with_private_codes(jnf.CONFIG, dmvae.Config)
QUICK = published.baseline_with_private_codes(jnf.QUICK, dmvae.Config)
