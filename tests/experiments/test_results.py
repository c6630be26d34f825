"""The committed results are of today's configs."""

import contextlib
import dataclasses
import pathlib

import pytest

from experiments import experiment, run_folder
from jnf_jax.marginals import standard_normal

ROOT = pathlib.Path(__file__).parents[2]
RESULTS = ROOT / "experiments" / "results"
RUNS = sorted(str(path.parent.relative_to(RESULTS)) for path in RESULTS.rglob("config.json"))


def published(model, sampler):
    """The model with the published product, inside the wall that it had."""
    return dataclasses.replace(model, marginal=standard_normal.Config(), product_rule="prior", sampler=sampler)


@pytest.mark.parametrize("run", RUNS)
def test_settings_are_those_of_the_experiment(run):
    name = "/".join(pathlib.Path(run).parts[:2])
    sizes = [experiment.find(name)]
    with contextlib.suppress(ValueError):  # it has no quick size
        sizes.append(experiment.find(name, quick=True))
    config = run_folder.load(RESULTS / run)
    if getattr(config.model, "product_rule", None) == "prior":  # made by the published product: the rest has to agree
        sizes = [dataclasses.replace(size, model=published(size.model, config.model.sampler)) for size in sizes]
    assert config in [dataclasses.replace(size, seed=config.seed) for size in sizes], "run it again"
