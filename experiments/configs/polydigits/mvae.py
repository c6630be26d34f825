"""MVAE on polydigits, with the networks, the latent dimension and the budget of steps of JNF.

python -m experiments.train polydigits/mvae --workdir runs/mvae

One random subset of each example joins the joint and the unimodal ELBOs.

Beta and the learning rate are the best of a grid on validation data (docs/results/grid.md).
"""

from experiments.configs import published
from experiments.configs.polydigits import jnf
from jnf_jax.models import mvae

CONFIG = published.baseline(jnf.CONFIG, mvae.Config, beta=1.0, learning_rate=1e-3)
