"""MMVAE+ on extended PolyMNIST, a stand-in, with the networks, the latent dimension, beta and the budget of steps of JNF.

    python -m experiments.train extended_polymnist/mmvae_plus --workdir runs/extended_polymnist_mmvae_plus [--quick]

The shared and a private code have half of the latent dimensions each, so that decoders see as many as the others'. K is 1, as in the paper.
"""

from experiments.configs import published
from experiments.configs.extended_polymnist import jnf
from jnf_jax.models import mmvae_plus

CONFIG = published.baseline(
    jnf.CONFIG, mmvae_plus.Config, latent_dim=jnf.CONFIG.model.latent_dim // 2, private_dim=jnf.CONFIG.model.latent_dim // 2
)
QUICK = published.baseline(
    jnf.QUICK, mmvae_plus.Config, latent_dim=jnf.QUICK.model.latent_dim // 2, private_dim=jnf.QUICK.model.latent_dim // 2
)
