"""MVTCAE on polydigits, with the networks, the latent dimension and the budget of steps of JNF.

python -m experiments.train polydigits/mvtcae --workdir runs/mvtcae

alpha is the paper's for images, 5/6.

Beta is the best of a grid on validation data (docs/results/grid.md).
"""

from experiments.configs import published
from experiments.configs.polydigits import jnf
from jnf_jax.models import mvtcae

CONFIG = published.baseline(jnf.CONFIG, mvtcae.Config, beta=5.0)
