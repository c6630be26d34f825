"""JNF-Shared on PolyMNIST, its projectors trained by contrastive learning.

    python -m experiments.train polymnist/jnf_cl --workdir runs/polymnist_jnf_cl [--quick [--init-from runs/polymnist_jnf --init-stages joint]]

The published run has residual networks, unlike the others; at the quick size all have the same.

Not run here: its data could not be had.
"""

from experiments.configs import published
from experiments.configs.polymnist import jnf
from jnf_jax.data import polymnist

CONFIG = published.contrastive_variant(
    published.polymnist_resnet(polymnist.Config()), dim=10, epochs=100, num_train=54_000, batch_size=64
)
QUICK = published.quick(
    published.contrastive_variant(jnf.CONFIG, dim=10, epochs=100, num_train=54_000, batch_size=64), beta=2.5
)
