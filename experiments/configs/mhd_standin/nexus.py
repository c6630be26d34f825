"""Nexus on the MHD stand-in, with the networks, the latent dimension, beta and the budget of steps of JNF.

python -m experiments.train mhd_standin/nexus --workdir runs/mhd_standin_nexus [--quick]

A modality's own code, which its decoder sees, has as many dimensions as the shared one. Messages are dropped from half of the examples.
"""

from experiments.configs import published
from experiments.configs.mhd_standin import jnf
from jnf_jax.models import nexus

CONFIG = published.baseline(jnf.CONFIG, nexus.Config, private_dim=jnf.CONFIG.model.latent_dim)
QUICK = published.baseline(jnf.QUICK, nexus.Config, private_dim=jnf.QUICK.model.latent_dim)
