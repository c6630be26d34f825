"""JNF-Shared on squares and circles, its projectors trained by contrastive learning, two dimensions. Shares the first stage of toy/gaussian.

python -m experiments.train toy/jnf_cl --workdir runs/toy/jnf_cl --init-from runs/toy/gaussian --init-stages joint
"""

import dataclasses

from experiments.configs.toy import jnf
from jnf_jax.projectors import contrastive
from jnf_jax.training import fit

CONFIG = dataclasses.replace(
    jnf.CONFIG,
    model=dataclasses.replace(jnf.CONFIG.model, projector=contrastive.Config(dim=2)),
    training={"projector": fit.Config(num_steps=1_000, batch_size=256), **jnf.CONFIG.training},
)
