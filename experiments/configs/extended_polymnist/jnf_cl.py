"""JNF-Shared on extended PolyMNIST, a stand-in, its projectors trained by contrastive learning.

    python -m experiments.train extended_polymnist/jnf_cl --workdir runs/extended_polymnist_jnf_cl [--quick [--init-from runs/extended_polymnist_jnf --init-stages joint]]

The published run has residual networks, unlike the others; at the quick size all have the same.

Obtained at the quick size: docs/results/coherence.md.
"""

from experiments.configs import published
from experiments.configs.extended_polymnist import jnf
from jnf_jax.data import extended_polymnist

CONFIG = published.contrastive_variant(
    published.polymnist_resnet(extended_polymnist.Config()), dim=10, epochs=100, num_train=54_000, batch_size=64
)
QUICK = published.quick(
    published.contrastive_variant(jnf.CONFIG, dim=10, epochs=100, num_train=54_000, batch_size=64), beta=2.5
)
