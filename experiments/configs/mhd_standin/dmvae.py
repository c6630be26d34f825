"""DMVAE on the MHD stand-in, with the networks, the latent dimension, beta and the budget of steps of JNF.

python -m experiments.train mhd_standin/dmvae --workdir runs/mhd_standin_dmvae [--quick]

The shared code has half of the latent dimensions, a private one 4, and both have JNF's beta. With half of them each and a private_beta of 1 the shared code
stayed empty on polydigits (coherence .12).
"""

from experiments.configs import published
from experiments.configs.mhd_standin import jnf
from jnf_jax.models import dmvae

CONFIG = published.baseline_with_private_codes(jnf.CONFIG, dmvae.Config, private_dim=4, private_beta=jnf.CONFIG.model.beta)
QUICK = published.baseline_with_private_codes(jnf.QUICK, dmvae.Config, private_dim=4, private_beta=jnf.QUICK.model.beta)
