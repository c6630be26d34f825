"""JNF-Shared on Translated PolyMNIST, its projectors trained by DCCA.

    python -m experiments.train translated_polymnist/jnf_dcca --workdir runs/translated_polymnist_jnf_dcca [--quick] [--init-from runs/translated_polymnist_jnf --init-stages joint]

Not run here: its data could not be had.
"""

from experiments.configs import published
from experiments.configs.translated_polymnist import jnf

CONFIG = published.dcca_variant(jnf.CONFIG, dim=20, epochs=200, num_train=54_000)
QUICK = published.quick_annealed(CONFIG)
