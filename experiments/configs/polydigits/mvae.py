"""MVAE on polydigits, with the networks, the latent dimension, beta and the budget of steps of JNF.

python -m experiments.train polydigits/mvae --workdir runs/mvae

One random subset of each example joins the joint and the unimodal ELBOs.
"""

from experiments.configs import published
from experiments.configs.polydigits import jnf
from jnf_jax.models import mvae

CONFIG = published.baseline(jnf.CONFIG, mvae.Config)
