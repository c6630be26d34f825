"""JNF on squares and circles, two latent dimensions: figure 2 (c). Shares the first stage of toy/gaussian.

python -m experiments.train toy/jnf --workdir runs/toy/jnf --init-from runs/toy/gaussian --init-stages joint
"""

import dataclasses

from experiments.configs.toy import gaussian
from jnf_jax.flows import maf

CONFIG = dataclasses.replace(
    gaussian.CONFIG,
    model=dataclasses.replace(
        gaussian.CONFIG.model,
        # two modalities need no product of experts: nothing has to keep its tails in
        flow=maf.Config(num_blocks=5, hidden=(64, 64), widening=True, input_bound=10.0),
        wide_experts=True,
    ),
)
