"""DMVAE on extended PolyMNIST, a stand-in, with the networks, the latent dimension, beta and the budget of steps of JNF.

python -m experiments.train extended_polymnist/dmvae --workdir runs/extended_polymnist_dmvae [--quick]

The shared code has half of the latent dimensions, a private one 4, and both have JNF's beta. With half of them each and a private_beta of 1 the shared code
stayed empty on polydigits (coherence .12).
"""

from experiments.configs import published
from experiments.configs.extended_polymnist import jnf
from jnf_jax.models import dmvae

CONFIG = published.baseline_with_private_codes(jnf.CONFIG, dmvae.Config, private_dim=4, private_beta=jnf.CONFIG.model.beta)
QUICK = published.baseline_with_private_codes(jnf.QUICK, dmvae.Config, private_dim=4, private_beta=jnf.QUICK.model.beta)
