"""JNF-Shared on the MHD stand-in, its projectors trained by DCCA.

    python -m experiments.train mhd_standin/jnf_dcca --workdir runs/mhd_standin_jnf_dcca [--quick] [--init-from runs/mhd_standin_jnf --init-stages joint]

Obtained at the quick size: docs/results/coherence.md.
"""

from experiments.configs import published
from experiments.configs.mhd_standin import jnf

CONFIG = published.dcca_variant(jnf.CONFIG, dim=20, epochs=100, num_train=45_000, learning_rate=1e-4)
QUICK = published.quick(CONFIG, latent_dim=24, networks=jnf.NETWORKS)
