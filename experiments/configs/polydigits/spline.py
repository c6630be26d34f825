"""JNF with rational-quadratic-spline coupling flows on polydigits; shares the demo's first stage.

python -m experiments.train polydigits/spline --workdir runs/spline --init-from runs/demo
"""

import dataclasses

from experiments.configs.polydigits import jnf
from jnf_jax.flows import coupling

CONFIG = dataclasses.replace(jnf.CONFIG, model=dataclasses.replace(jnf.CONFIG.model, flow=coupling.Config(bijection="spline")))
