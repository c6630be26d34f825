"""JNF of plain Gaussian posteriors on squares and circles, two latent dimensions: figure 2 (b).

python -m experiments.train toy/gaussian --workdir runs/toy/gaussian

20,000 pairs, beta 1, a Gaussian likelihood of scale 2 for each pixel (0 or 1), 18,000 steps in two stages.
"""

from experiments import experiment
from jnf_jax.data import toy
from jnf_jax.flows import identity
from jnf_jax.models import jnf
from jnf_jax.networks import mlp
from jnf_jax.training import fit

CONFIG = experiment.Config(
    data=toy.Config(scale=2.0),
    model=jnf.Config(latent_dim=2, network=mlp.Config(hidden=(512,)), flow=identity.Config(), wide_experts=True),
    training={
        "joint": fit.Config(num_steps=12_000, batch_size=256),
        "experts": fit.Config(num_steps=6_000, batch_size=256),
    },
)
