"""JNF-Shared on MNIST beside MNIST-M, a stand-in for MNIST-SVHN, its projectors trained by contrastive learning.

    python -m experiments.train mnist_mnistm/jnf_cl --workdir runs/mnist_mnistm_jnf_cl [--quick] [--init-from runs/mnist_mnistm_jnf --init-stages joint]

Obtained at the quick size: docs/results/coherence.md.
"""

from experiments.configs import published
from experiments.configs.mnist_mnistm import jnf

CONFIG = published.contrastive_variant(jnf.CONFIG, dim=10, epochs=150, num_train=252_000, batch_size=256)
QUICK = published.quick(CONFIG, beta=1.0, joint_steps=12_000)
