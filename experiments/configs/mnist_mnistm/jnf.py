"""JNF on MNIST beside MNIST-M, a stand-in for MNIST-SVHN, with the published networks and the settings of the published run.

    python -m experiments.train mnist_mnistm/jnf --workdir runs/mnist_mnistm_jnf [--quick]

The published numbers are of other data; no number is expected. Obtained at the quick size: docs/results/coherence.md.
"""

from experiments.configs import published
from jnf_jax.data import mnist_mnistm

CONFIG = published.mnist_svhn(mnist_mnistm.Config(), "mnistm")
QUICK = published.quick(CONFIG, beta=1.0, joint_steps=12_000)
