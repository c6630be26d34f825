"""TELBO on extended PolyMNIST, a stand-in, with the networks, the latent dimension, beta and the budget of steps of JNF.

python -m experiments.train extended_polymnist/telbo --workdir runs/extended_polymnist_telbo [--quick]

Its two stages have JNF's steps.
"""

from experiments.configs import published
from experiments.configs.extended_polymnist import jnf
from jnf_jax.models import telbo

CONFIG = published.baseline(jnf.CONFIG, telbo.Config, two_stages=True)
QUICK = published.baseline(jnf.QUICK, telbo.Config, two_stages=True)
