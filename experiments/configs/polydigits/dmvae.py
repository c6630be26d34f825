"""DMVAE on polydigits, with the networks, the latent dimension, beta and the budget of steps of JNF.

python -m experiments.train polydigits/dmvae --workdir runs/dmvae

The shared code has half of the latent dimensions, a private one 4, and both have JNF's beta. With half of them each and a private_beta of 1 the shared code
stayed empty on polydigits (coherence .12).
"""

from experiments.configs import published
from experiments.configs.polydigits import jnf
from jnf_jax.models import dmvae

CONFIG = published.baseline_with_private_codes(jnf.CONFIG, dmvae.Config, private_dim=4, private_beta=jnf.CONFIG.model.beta)
