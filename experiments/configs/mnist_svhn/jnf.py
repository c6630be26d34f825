"""JNF on MNIST-SVHN, with the published networks and the settings of the published run.

    python -m experiments.train mnist_svhn/jnf --workdir runs/mnist_svhn_jnf [--quick]

Published: coherence .83 MNIST to SVHN, .55 back. Not run here: its data could not be had.
"""

from experiments.configs import published
from jnf_jax.data import mnist_svhn

CONFIG = published.mnist_svhn(mnist_svhn.Config(), "svhn")
QUICK = published.quick(CONFIG, beta=1.0, joint_steps=12_000)
