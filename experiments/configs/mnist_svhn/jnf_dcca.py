"""JNF-Shared on MNIST-SVHN, its projectors trained by DCCA.

    python -m experiments.train mnist_svhn/jnf_dcca --workdir runs/mnist_svhn_jnf_dcca [--quick] [--init-from runs/mnist_svhn_jnf --init-stages joint]

Not run here: its data could not be had.
"""

from experiments.configs import published
from experiments.configs.mnist_svhn import jnf

CONFIG = published.dcca_variant(jnf.CONFIG, dim=9, epochs=100, num_train=252_000)
QUICK = published.quick(CONFIG, beta=1.0, joint_steps=12_000)
