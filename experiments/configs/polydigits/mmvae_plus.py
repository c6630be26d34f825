"""MMVAE+ on polydigits, with the networks, the latent dimension, beta and the budget of steps of JNF.

python -m experiments.train polydigits/mmvae_plus --workdir runs/mmvae_plus

The shared and a private code have half of the latent dimensions each, so that decoders see as many as the others'. K is 1, as in the paper.
"""

from experiments.configs import published
from experiments.configs.polydigits import jnf
from jnf_jax.models import mmvae_plus

CONFIG = published.baseline_with_private_codes(jnf.CONFIG, mmvae_plus.Config)
