"""JNF-Shared on MHD, its projectors trained by contrastive learning.

    python -m experiments.train mhd/jnf_cl --workdir runs/mhd_jnf_cl [--quick] [--init-from runs/mhd_jnf --init-stages joint]

Not run here: its data could not be had.
"""

from experiments.configs import published
from experiments.configs.mhd import jnf

CONFIG = published.contrastive_variant(jnf.CONFIG, dim=16, epochs=100, num_train=45_000, batch_size=256)
QUICK = published.quick(CONFIG, latent_dim=24, networks=jnf.NETWORKS)
