"""Nexus on extended PolyMNIST, a stand-in, with the networks, the latent dimension, beta and the budget of steps of JNF.

python -m experiments.train extended_polymnist/nexus --workdir runs/extended_polymnist_nexus [--quick]

A modality's own code, which its decoder sees, has as many dimensions as the shared one. Messages are dropped from half of the examples.
The top's loss is that of MultiVae's default, where s_j is 1 and gamma is 1, and other modalities' codes are drawn close to m_j(u), as there.
"""

from experiments.configs import published
from experiments.configs.extended_polymnist import jnf
from jnf_jax.models import nexus

CONFIG = published.baseline(jnf.CONFIG, nexus.Config, private_dim=jnf.CONFIG.model.latent_dim, top_scale=0.1, gamma=0.01)
QUICK = published.baseline(jnf.QUICK, nexus.Config, private_dim=jnf.QUICK.model.latent_dim, top_scale=0.1, gamma=0.01)
