"""JNF on polydigits with the published product of experts, prod q_j / p(z)^(|S|-1), and draws of N(0, I); can share the demo's training (the committed results did not).

python -m experiments.train polydigits/published_product --workdir runs/published --init-from runs/demo --init-stages joint experts
"""

import dataclasses

from experiments.configs.polydigits import jnf
from jnf_jax.marginals import standard_normal

CONFIG = dataclasses.replace(
    jnf.CONFIG, model=dataclasses.replace(jnf.CONFIG.model, marginal=standard_normal.Config(), product_rule="prior")
)
