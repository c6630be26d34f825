"""JNF-Shared on polydigits, its projectors trained by contrastive learning; shares the demo's joint stage.

python -m experiments.train polydigits/jnf_cl --workdir runs/jnf_cl --init-from runs/demo --init-stages joint
"""

import dataclasses

from experiments.configs.polydigits import jnf
from jnf_jax.projectors import contrastive
from jnf_jax.training import fit

CONFIG = dataclasses.replace(
    jnf.CONFIG,
    model=dataclasses.replace(jnf.CONFIG.model, projector=contrastive.Config(dim=10)),
    training={"projector": fit.Config(num_steps=1_000, batch_size=256), **jnf.CONFIG.training},
)
