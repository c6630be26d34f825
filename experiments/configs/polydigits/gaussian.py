"""JNF of plain Gaussian posteriors (no flow) on polydigits, for comparison; shares the demo's first stage.

python -m experiments.train polydigits/gaussian --workdir runs/gaussian --init-from runs/demo
"""

import dataclasses

from experiments.configs.polydigits import jnf
from jnf_jax.flows import identity

CONFIG = dataclasses.replace(jnf.CONFIG, model=dataclasses.replace(jnf.CONFIG.model, flow=identity.Config()))
