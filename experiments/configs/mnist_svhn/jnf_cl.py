"""JNF-Shared on MNIST-SVHN, its projectors trained by contrastive learning.

    python -m experiments.train mnist_svhn/jnf_cl --workdir runs/mnist_svhn_jnf_cl [--quick] [--init-from runs/mnist_svhn_jnf --init-stages joint]

Not run here: its data could not be had.
"""

from experiments.configs import published
from experiments.configs.mnist_svhn import jnf

CONFIG = published.contrastive_variant(jnf.CONFIG, dim=10, epochs=150, num_train=252_000, batch_size=256)
QUICK = published.quick(CONFIG, beta=1.0, joint_steps=12_000)
