"""JNF on extended PolyMNIST, a stand-in, with convolutions and the settings of the published run.

    python -m experiments.train extended_polymnist/jnf --workdir runs/extended_polymnist_jnf [--quick]

The published numbers are of other data; no number is expected. Obtained at the quick size: docs/results/coherence.md.
"""

from experiments.configs import published
from jnf_jax.data import extended_polymnist

CONFIG = published.polymnist(extended_polymnist.Config())
QUICK = published.quick(CONFIG, beta=2.5)
