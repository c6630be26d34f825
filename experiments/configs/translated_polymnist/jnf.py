"""JNF on Translated PolyMNIST, with residual networks and the settings of the published run.

    python -m experiments.train translated_polymnist/jnf --workdir runs/translated_polymnist_jnf [--quick]

No published number of this very setting is known here. Not run here: its data could not be had.
"""

from experiments.configs import published
from jnf_jax.data import translated_polymnist

CONFIG = published.translated_polymnist(translated_polymnist.Config())
QUICK = published.quick_annealed(CONFIG)
