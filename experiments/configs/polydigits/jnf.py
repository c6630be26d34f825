"""JNF on polydigits, the demo.

python -m experiments.train polydigits/jnf --workdir runs/demo
"""

from experiments import experiment
from jnf_jax.data import polydigits
from jnf_jax.models import jnf
from jnf_jax.networks import conv
from jnf_jax.training import fit

CONFIG = experiment.Config(
    data=polydigits.Config(),
    model=jnf.Config(latent_dim=24, beta=2.5, network=conv.Config(channels=(16, 32), hidden=128)),
    training={
        "joint": fit.Config(num_steps=2_000, learning_rate=2e-3),
        "experts": fit.Config(num_steps=2_000),
    },
)
