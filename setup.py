"""Packages alone; everything else is in setup.cfg.

The folder `experiments` is installed as `jnf_jax_experiments.experiments`: a top-level package of that name could be anybody's.
"""

import setuptools

EXPERIMENTS = [
    name
    for name in setuptools.find_packages(include=["experiments", "experiments.*"])
    if not name.startswith("experiments.benchmarks")
]

setuptools.setup(
    packages=[
        *setuptools.find_packages(include=["jnf_jax", "jnf_jax.*", "jnf_jax_experiments"]),
        *(f"jnf_jax_experiments.{name}" for name in EXPERIMENTS),
    ],
    package_dir={f"jnf_jax_experiments.{name}": name.replace(".", "/") for name in EXPERIMENTS},
)
