"""JNF on MHD, with the published networks and the settings of the published run.

    python -m experiments.train mhd/jnf --workdir runs/mhd_jnf [--quick]

No published number of this very setting is known here. Not run here: its data could not be had.
"""

from experiments.configs import published
from jnf_jax.data import mhd
from jnf_jax.networks import mlp

CONFIG = published.mhd(mhd.Config())
NETWORKS = {"trajectory": mlp.Config(hidden=(256, 256))}
QUICK = published.quick(CONFIG, latent_dim=24, networks=NETWORKS)
