"""JNF on polydigits as the authors sample it: flows and experts of free width, 100 iterations of 10 steps of 0.01.

python -m experiments.train polydigits/reference_chains --workdir runs/reference --init-from runs/demo
"""

import dataclasses

from experiments.configs.polydigits import jnf
from jnf_jax.flows import maf
from jnf_jax.marginals import standard_normal
from jnf_jax.posteriors import hmc

CONFIG = dataclasses.replace(
    jnf.CONFIG,
    model=dataclasses.replace(
        jnf.CONFIG.model,
        flow=maf.Config(activation="relu", widening=True),
        wide_experts=True,
        marginal=standard_normal.Config(),
        product_rule="prior",
        sampler=hmc.REFERENCE,
    ),
)
