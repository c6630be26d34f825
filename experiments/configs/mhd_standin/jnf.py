"""JNF on the MHD stand-in, with the published networks and the settings of the published run.

    python -m experiments.train mhd_standin/jnf --workdir runs/mhd_standin_jnf [--quick]

The published numbers are of other data; no number is expected. Obtained at the quick size: docs/results/coherence.md.
"""

from experiments.configs import published
from jnf_jax.data import mhd_standin
from jnf_jax.networks import mlp

CONFIG = published.mhd(mhd_standin.Config())
NETWORKS = {"trajectory": mlp.Config(hidden=(256, 256))}
QUICK = published.quick(CONFIG, latent_dim=24, networks=NETWORKS)
