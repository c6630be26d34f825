"""JMVAE on polydigits, with the networks, the latent dimension and the budget of steps of JNF.

python -m experiments.train polydigits/jmvae --workdir runs/jmvae

alpha is the paper's, 0.1.

Beta is the best of a grid on validation data (docs/results/grid.md).
"""

from experiments.configs import published
from experiments.configs.polydigits import jnf
from jnf_jax.models import jmvae

CONFIG = published.baseline(jnf.CONFIG, jmvae.Config, beta=1.0)
