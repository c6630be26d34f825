"""JNF on squares and circles, two latent dimensions: figure 2 (c). Shares the first stage of toy/gaussian.

python -m experiments.train toy/jnf --workdir runs/toy/jnf --init-from runs/toy/gaussian --init-stages joint
"""

import dataclasses

from experiments.configs.toy import gaussian
from jnf_jax.flows import coupling

CONFIG = dataclasses.replace(
    gaussian.CONFIG,
    model=dataclasses.replace(
        gaussian.CONFIG.model,
        # two modalities need no product of experts: nothing has to keep its tails in
        flow=coupling.Config(
            bijection="spline", num_layers=8, hidden=(64, 64), num_bins=12, range=5.0, input_bound=10.0, widening=True
        ),
        wide_experts=True,
    ),
)
