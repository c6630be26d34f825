"""JNF on translated extended PolyMNIST, a stand-in, with residual networks and the settings of the published run.

    python -m experiments.train translated_extended_polymnist/jnf --workdir runs/translated_extended_polymnist_jnf [--quick]

The published numbers are of other data; no number is expected. Obtained at the quick size: docs/results/coherence.md.
"""

from experiments.configs import published
from jnf_jax.data import translated_extended_polymnist

CONFIG = published.translated_polymnist(translated_extended_polymnist.Config())
QUICK = published.quick_annealed(CONFIG)
