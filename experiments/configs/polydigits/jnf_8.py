"""JNF on polydigits with eight views of a digit.

python -m experiments.train polydigits/jnf_8 --workdir runs/eight
python -m experiments.evaluate --workdir runs/eight --subsets sizes
"""

import dataclasses

from experiments.configs.polydigits import jnf
from jnf_jax.data import polydigits

CONFIG = dataclasses.replace(jnf.CONFIG, data=polydigits.Config(num_modalities=8))
