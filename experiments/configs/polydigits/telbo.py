"""TELBO on polydigits, with the networks, the latent dimension, beta and the budget of steps of JNF.

python -m experiments.train polydigits/telbo --workdir runs/telbo

Its two stages have JNF's steps.
"""

from experiments.configs import published
from experiments.configs.polydigits import jnf
from jnf_jax.models import telbo

CONFIG = published.baseline(jnf.CONFIG, telbo.Config, two_stages=True)
