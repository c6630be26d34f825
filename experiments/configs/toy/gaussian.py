"""JNF of plain Gaussian posteriors on squares and circles, two latent dimensions: figure 2 (b).

python -m experiments.train toy/gaussian --workdir runs/toy/gaussian

20,000 pairs, beta 1 (stage 1 comes down to it from 62), a Gaussian likelihood of scale 0.8 for each pixel (0 or 1), 18,000 steps in two stages.
Gap KL(p_theta || q): experiments/results/toy/gaussian/inference_gap.json; the table is in docs/explanation/inference-gap.md.
"""

from experiments import experiment
from jnf_jax.data import toy
from jnf_jax.flows import identity
from jnf_jax.models import jnf
from jnf_jax.networks import mlp
from jnf_jax.training import fit

CONFIG = experiment.Config(
    seed=1,  # decides how the plane is torn and turned, and so how badly a diagonal Gaussian fits: docs/explanation/inference-gap.md has other seeds
    data=toy.Config(scale=0.8),
    model=jnf.Config(
        latent_dim=2,
        # without a long descent the plane is laid out by details: torn, its classes interleaved
        initial_beta=62.0,
        annealing=0.9,
        network=mlp.Config(hidden=(512, 512), activation="silu"),
        joint_covariance="full",
        flow=identity.Config(),
        wide_experts=True,
    ),
    training={
        "joint": fit.Config(num_steps=13_000, batch_size=256, learning_rate=2e-3),
        "experts": fit.Config(num_steps=5_000, batch_size=256, learning_rate=2e-3),
    },
)
