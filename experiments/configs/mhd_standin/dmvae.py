"""DMVAE on the MHD stand-in, with the networks, the latent dimension, beta and the budget of steps of JNF.

python -m experiments.train mhd_standin/dmvae --workdir runs/mhd_standin_dmvae [--quick]

The shared and a private code have half of the latent dimensions each, so that decoders see as many as the others'.
"""

from experiments.configs import published
from experiments.configs.mhd_standin import jnf
from jnf_jax.models import dmvae

CONFIG = published.baseline_with_private_codes(jnf.CONFIG, dmvae.Config)
QUICK = published.baseline_with_private_codes(jnf.QUICK, dmvae.Config)
