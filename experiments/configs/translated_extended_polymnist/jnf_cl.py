"""JNF-Shared on translated extended PolyMNIST, a stand-in, its projectors trained by contrastive learning.

    python -m experiments.train translated_extended_polymnist/jnf_cl --workdir runs/translated_extended_polymnist_jnf_cl [--quick] [--init-from runs/translated_extended_polymnist_jnf --init-stages joint]

Obtained at the quick size: docs/results/coherence.md.
"""

from experiments.configs import published
from experiments.configs.translated_extended_polymnist import jnf

CONFIG = published.contrastive_variant(jnf.CONFIG, dim=10, epochs=80, num_train=54_000, batch_size=256)
QUICK = published.quick_annealed(CONFIG)
