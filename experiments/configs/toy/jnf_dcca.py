"""JNF-Shared on squares and circles, its projectors trained by DCCA, one dimension: figure 2 (d). Shares the first stage of toy/gaussian.

python -m experiments.train toy/jnf_dcca --workdir runs/toy/jnf_dcca --init-from runs/toy/gaussian --init-stages joint
"""

import dataclasses

from experiments.configs.toy import jnf
from jnf_jax.projectors import dcca
from jnf_jax.training import fit

CONFIG = dataclasses.replace(
    jnf.CONFIG,
    model=dataclasses.replace(jnf.CONFIG.model, projector=dcca.Config(dim=1)),
    training={"projector": fit.Config(num_steps=1_000, batch_size=500), **jnf.CONFIG.training},
)
