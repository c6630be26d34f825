"""JNF-Shared on MNIST beside MNIST-M, a stand-in for MNIST-SVHN, its projectors trained by DCCA.

    python -m experiments.train mnist_mnistm/jnf_dcca --workdir runs/mnist_mnistm_jnf_dcca [--quick] [--init-from runs/mnist_mnistm_jnf --init-stages joint]

Obtained at the quick size: docs/results/coherence.md.
"""

from experiments.configs import published
from experiments.configs.mnist_mnistm import jnf

CONFIG = published.dcca_variant(jnf.CONFIG, dim=9, epochs=100, num_train=252_000)
QUICK = published.quick(CONFIG, beta=1.0, joint_steps=12_000)
