import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.benchmarks import effective, run, settings, targets
from jnf_jax import types
from jnf_jax.flows import identity
from jnf_jax.posteriors import product

RESULTS = json.loads((run.Arguments().output).read_text())


@pytest.mark.parametrize("target", [name for name in settings.TARGETS if name.startswith("gaussian")])
def test_exact_moments_are_those_of_the_product(target):
    flow = identity.build(identity.Config(), settings.TARGETS[target][0])
    loc, scale = (jnp.asarray(values[0], jnp.float64) for values in targets.bases(target))
    mean, variance = (values[0] for values in targets.exact_moments(target))
    rule = product.Rule(kind="prior", flow=flow)
    density = lambda z: product.log_density(rule, product.Shared({}), types.Gaussian(loc, scale), z)
    np.testing.assert_allclose(jax.grad(density)(jnp.asarray(mean, jnp.float64)), 0, atol=1e-4)
    np.testing.assert_allclose(
        jax.hessian(density)(jnp.asarray(mean, jnp.float64)), -np.diag(1 / variance), rtol=1e-4, atol=1e-8
    )


def test_draws_of_the_wrong_law_are_seen():
    right = np.random.default_rng(0).normal(size=(200, 4, 5, 3))
    for scale, is_right in [(1.0, True), (1.2, False)]:
        square, error = effective._mean_square(scale * right, np.zeros((5, 3)), np.ones((5, 3)))
        assert (abs(square - 1) < 5 * error) == is_right


def test_a_ratio_above_one_says_that_we_are_ahead():
    assert run._row("a", "s", {"ours": 1.0, "theirs": 3.0}, lower_is_better=True)["ratio"] == 3
    assert run._row("a", "draws/s", {"ours": 1.0, "theirs": 4.0}, lower_is_better=False)["ratio"] == 0.25
    assert run._row("a", "s", {"ours": 1.0}, lower_is_better=True)["ratio"] is None


def test_the_committed_results_hold_every_row():
    names = {row["name"] for row in RESULTS["rows"]}
    assert {row.name for row in settings.rows()} <= names, "run `make bench` again"
    assert {name.split("/")[0] for name in names} == {"train", "draws", "subset", "ess", "start", "memory"}
