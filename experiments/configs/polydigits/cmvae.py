"""CMVAE on polydigits, with the networks, the latent dimension, beta and the budget of steps of JNF.

python -m experiments.train polydigits/cmvae --workdir runs/cmvae

The shared and a private code have half of the latent dimensions each, so that decoders see as many as the others'.
There are 10 clusters, and K is 1.
"""

from experiments.configs import published
from experiments.configs.polydigits import jnf
from jnf_jax.models import cmvae

CONFIG = published.baseline_with_private_codes(jnf.CONFIG, cmvae.Config)
