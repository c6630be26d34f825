"""MMVAE+ on extended PolyMNIST, a stand-in, with the networks, the latent dimension, beta and the budget of steps of JNF.

python -m experiments.train extended_polymnist/mmvae_plus --workdir runs/extended_polymnist_mmvae_plus [--quick]

The shared and a private code have half of the latent dimensions each, so that decoders see as many as the others'. K is 1, as in the paper.
"""

from experiments.configs import published
from experiments.configs.extended_polymnist import jnf
from jnf_jax.models import mmvae_plus

CONFIG = published.baseline_with_private_codes(jnf.CONFIG, mmvae_plus.Config)
QUICK = published.baseline_with_private_codes(jnf.QUICK, mmvae_plus.Config)
