"""JNF-Shared on the MHD stand-in, its projectors trained by contrastive learning.

    python -m experiments.train mhd_standin/jnf_cl --workdir runs/mhd_standin_jnf_cl [--quick] [--init-from runs/mhd_standin_jnf --init-stages joint]

Obtained at the quick size: docs/results/coherence.md.
"""

from experiments.configs import published
from experiments.configs.mhd_standin import jnf

CONFIG = published.contrastive_variant(jnf.CONFIG, dim=16, epochs=100, num_train=45_000, batch_size=256)
QUICK = published.quick(CONFIG, latent_dim=24, networks=jnf.NETWORKS)
