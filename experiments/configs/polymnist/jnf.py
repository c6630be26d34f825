"""JNF on PolyMNIST, with convolutions and the settings of the published run.

    python -m experiments.train polymnist/jnf --workdir runs/polymnist_jnf [--quick]

Published: coherence from 1/2/3/4 modalities .675/.848/.903/.917. Not run here: its data could not be had.
"""

from experiments.configs import published
from jnf_jax.data import polymnist

CONFIG = published.polymnist(polymnist.Config())
QUICK = published.quick(CONFIG, beta=2.5)
