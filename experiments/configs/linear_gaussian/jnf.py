"""JNF of linear networks on linear-Gaussian data, whose posteriors are known exactly: the smallest complete experiment.

python -m experiments.train linear_gaussian/jnf --workdir runs/linear
"""

from experiments import experiment
from jnf_jax.data import linear_gaussian
from jnf_jax.flows import maf
from jnf_jax.metrics import classifiers
from jnf_jax.models import jnf
from jnf_jax.networks import mlp
from jnf_jax.training import fit

CONFIG = experiment.Config(
    data=linear_gaussian.Config(),
    model=jnf.Config(latent_dim=2, network=mlp.Config(hidden=()), joint_hidden=(), flow=maf.Config(hidden=(32, 32))),
    training={
        "joint": fit.Config(num_steps=3_000, learning_rate=1e-2, batch_size=500),
        "experts": fit.Config(num_steps=3_000, learning_rate=3e-3, batch_size=500),
    },
    classifiers=classifiers.Config(network=mlp.Config(hidden=(32,)), training=fit.Config(num_steps=200)),
)
