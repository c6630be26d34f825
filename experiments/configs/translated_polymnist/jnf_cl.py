"""JNF-Shared on Translated PolyMNIST, its projectors trained by contrastive learning.

    python -m experiments.train translated_polymnist/jnf_cl --workdir runs/translated_polymnist_jnf_cl [--quick] [--init-from runs/translated_polymnist_jnf --init-stages joint]

Not run here: its data could not be had.
"""

from experiments.configs import published
from experiments.configs.translated_polymnist import jnf

CONFIG = published.contrastive_variant(jnf.CONFIG, dim=10, epochs=80, num_train=54_000, batch_size=256)
QUICK = published.quick_annealed(CONFIG)
