"""MMVAE on polydigits, with the networks, the latent dimension, beta and the budget of steps of JNF.

python -m experiments.train polydigits/mmvae --workdir runs/mmvae

K is 1: every modality is decoded from every other one's code at each draw, and 10 draws cost ten times as much.
"""

from experiments.configs import published
from experiments.configs.polydigits import jnf
from jnf_jax.models import mmvae

CONFIG = published.baseline(jnf.CONFIG, mmvae.Config, num_importance=1)
