"""JNF-Shared on PolyMNIST, its projectors trained by DCCA.

    python -m experiments.train polymnist/jnf_dcca --workdir runs/polymnist_jnf_dcca [--quick] [--init-from runs/polymnist_jnf --init-stages joint]

Not run here: its data could not be had.
"""

from experiments.configs import published
from experiments.configs.polymnist import jnf

CONFIG = published.dcca_variant(jnf.CONFIG, dim=20, epochs=200, num_train=54_000)
QUICK = published.quick(CONFIG, beta=2.5)
