"""MMVAE+ on the MHD stand-in, with the networks, the latent dimension, beta and the budget of steps of JNF.

    python -m experiments.train mhd_standin/mmvae_plus --workdir runs/mhd_standin_mmvae_plus [--quick]

The shared and a private code have half of the latent dimensions each, so that decoders see as many as the others'. K is 1, as in the paper.
"""

from experiments.configs import published
from experiments.configs.mhd_standin import jnf
from jnf_jax.models import mmvae_plus

CONFIG = published.baseline(
    jnf.CONFIG, mmvae_plus.Config, latent_dim=jnf.CONFIG.model.latent_dim // 2, private_dim=jnf.CONFIG.model.latent_dim // 2
)
QUICK = published.baseline(
    jnf.QUICK, mmvae_plus.Config, latent_dim=jnf.QUICK.model.latent_dim // 2, private_dim=jnf.QUICK.model.latent_dim // 2
)
