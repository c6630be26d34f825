"""JNF-Shared on translated extended PolyMNIST, a stand-in, its projectors trained by DCCA.

    python -m experiments.train translated_extended_polymnist/jnf_dcca --workdir runs/translated_extended_polymnist_jnf_dcca [--quick] [--init-from runs/translated_extended_polymnist_jnf --init-stages joint]

Obtained at the quick size: docs/results/coherence.md.
"""

from experiments.configs import published
from experiments.configs.translated_extended_polymnist import jnf

CONFIG = published.dcca_variant(jnf.CONFIG, dim=20, epochs=200, num_train=54_000)
QUICK = published.quick_annealed(CONFIG)
