"""JNF-Shared on polydigits, its projectors trained by DCCA; shares the demo's joint stage.

python -m experiments.train polydigits/jnf_dcca --workdir runs/jnf_dcca --init-from runs/demo --init-stages joint
"""

import dataclasses

from experiments.configs.polydigits import jnf
from jnf_jax.projectors import dcca
from jnf_jax.training import fit

CONFIG = dataclasses.replace(
    jnf.CONFIG,
    model=dataclasses.replace(jnf.CONFIG.model, projector=dcca.Config(dim=9)),
    training={"projector": fit.Config(num_steps=1_000, batch_size=500), **jnf.CONFIG.training},
)
