"""TELBO on the MHD stand-in, with the networks, the latent dimension, beta and the budget of steps of JNF.

python -m experiments.train mhd_standin/telbo --workdir runs/mhd_standin_telbo [--quick]

Its two stages have JNF's steps.
"""

from experiments.configs import published
from experiments.configs.mhd_standin import jnf
from jnf_jax.models import telbo

CONFIG = published.baseline(jnf.CONFIG, telbo.Config, two_stages=True)
QUICK = published.baseline(jnf.QUICK, telbo.Config, two_stages=True)
