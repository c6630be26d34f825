import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jnf_jax import distributions, specs, subsets
from jnf_jax.data import linear_gaussian, source
from jnf_jax.flows import identity
from jnf_jax.metrics import inference_gap
from jnf_jax.models import jnf, mmvae
from jnf_jax.networks import mlp
from jnf_jax.posteriors import hmc

SPECS = {name: specs.ModalitySpec(shape=(dim,), scale=0.8) for name, dim in (("a", 3), ("b", 4), ("c", 2))}
NUM = 6
GRID = inference_gap.make_grid(radius=6.0, num=241)


@pytest.fixture(scope="module")
def linear():
    """A JNF of linear networks as initialised: its true posteriors are Gaussians known exactly, its own are others."""
    config = jnf.Config(latent_dim=2, network=mlp.Config(hidden=()), joint_hidden=(), flow=identity.Config())
    model = jnf.build(config, SPECS)
    params = jax.jit(model.init)(jax.random.key(0))
    rng = np.random.default_rng(0)
    data = {name: rng.normal(size=(NUM, *spec.shape)) for name, spec in SPECS.items()}
    return model, params, data


def exact(linear, subset):
    _, params, data = linear
    maps = {}
    for name in subset:
        dense = params["decoders"][name]["params"]["Dense_0"]
        maps[name] = linear_gaussian.LinearMap(np.asarray(dense["kernel"]).T, np.asarray(dense["bias"]), 0.8)
    return linear_gaussian.posterior(maps, {name: data[name] for name in subset})


SUBSETS = [("a",), ("a", "b"), ("a", "b", "c")]


@pytest.mark.parametrize("subset", SUBSETS, ids="+".join)
def test_the_true_posterior_on_the_grid_is_the_exact_one(linear, subset):
    model, params, data = linear
    mean, covariance = exact(linear, subset)
    found = inference_gap.true_posterior(model, params, {n: data[n] for n in subset}, GRID)
    expected = np.stack([jax.scipy.stats.multivariate_normal.logpdf(GRID.points, m, covariance) for m in mean])
    inside = expected > -20
    np.testing.assert_allclose(found[inside], expected[inside], atol=1e-4)
    entropy = 0.5 * np.log(np.linalg.det(2 * np.pi * np.e * covariance))
    np.testing.assert_allclose(-(np.exp(found + GRID.log_area) * found).sum(-1), entropy, atol=1e-4)


def gap_on_grid(linear, subset):
    model, params, data = linear
    observed = {n: data[n] for n in subset}
    truth = inference_gap.true_posterior(model, params, observed, GRID)
    return inference_gap.kl_on_grid(truth, inference_gap.model_posterior(model, params, observed, GRID), GRID)


@pytest.mark.parametrize("subset", [("a",), ("a", "b", "c")], ids="+".join)
def test_the_gap_on_the_grid_is_that_of_exact_draws(linear, subset):
    model, params, data = linear
    mean, covariance = exact(linear, subset)
    noise = np.random.default_rng(1).normal(size=(20_000, NUM, 2))
    z = mean + noise @ np.linalg.cholesky(covariance).T
    log_p = -0.5 * (noise**2).sum(-1) - 0.5 * np.log(np.linalg.det(2 * np.pi * covariance))
    ratio = log_p - np.asarray(model.posterior_log_density(params, {n: data[n] for n in subset}, jnp.asarray(z)))
    standard_error = ratio.std(0) / np.sqrt(len(ratio))
    gap = gap_on_grid(linear, subset)
    assert (np.abs(gap - ratio.mean(0)) < 5 * standard_error + 1e-4).all()
    assert gap.max() > 0.1  # there is something to measure


@pytest.mark.parametrize("likelihood", ["gaussian", "laplace", "bernoulli"])
def test_matrix_products_give_the_likelihoods(likelihood):
    spec = specs.ModalitySpec(shape=(2, 3), likelihood=likelihood, **({} if likelihood == "bernoulli" else {"scale": 0.7}))
    rng = np.random.default_rng(0)
    parameters, x = jnp.asarray(rng.normal(size=(5, 2, 3))), jnp.asarray(rng.integers(0, 2, (4, 2, 3)) * 1.0)
    expected = distributions.log_likelihood(spec, parameters[:, None], x)
    np.testing.assert_allclose(inference_gap._each_with_each(spec, parameters, x), expected, rtol=1e-10)


def test_a_coarser_grid_agrees(linear):
    model, params, data = linear
    truth = inference_gap.true_posterior(model, params, {"a": data["a"]}, GRID)
    coarse, grid = inference_gap.coarser(truth, GRID)
    assert coarse.shape == (NUM, 121**2) == (NUM, len(grid.points))
    np.testing.assert_allclose(np.exp(coarse + grid.log_area).sum(-1), 1, atol=1e-4)


@pytest.mark.parametrize("subset", SUBSETS[:2], ids="+".join)
def test_the_bounds_of_chains_hold_the_gap_of_the_grid(linear, subset):
    model, params, data = linear
    gap = inference_gap.sampled_gap(model, params, jax.random.key(0), {n: data[n] for n in subset}, num_draws=2_000)
    exact_gap = gap_on_grid(linear, subset)
    assert gap.info.rhat.max() < 1.01
    # a mean over 2,000 draws of log p / q, whose standard deviation for Gaussians is about 1 + sqrt(2 KL)
    noise = 5 * (1 + np.sqrt(2 * exact_gap)) / np.sqrt(2_000)
    assert (gap.lower < exact_gap + noise).all()
    assert (gap.upper > exact_gap - noise).all()
    assert (gap.upper - gap.lower < noise).all()


@pytest.mark.parametrize(("dim", "num"), [(2, 200), (24, 200), (64, 256)])
def test_the_bounds_of_a_normaliser_lie_on_both_sides_of_it(dim, num):
    draws = np.random.default_rng(0).normal(size=(4, num // 4, 200, dim))
    log_density = lambda z: -0.5 * (np.asarray(z) ** 2).sum(-1) - 0.5 * dim * np.log(2 * np.pi)
    lower, upper = inference_gap._normaliser_bounds(jax.random.key(0), log_density, draws, num_importance=1_000)
    standard_errors = [5 * bound.std() / np.sqrt(200) for bound in (lower, upper)]
    assert lower.mean() < standard_errors[0] and upper.mean() > -standard_errors[1]
    assert (upper > lower).mean() > 0.5


def test_bounds_are_apart_where_a_chain_is_elsewhere():
    """Half of the mass around -6, half around 6: one chain found the one, the others the other."""
    centres = np.asarray([-6.0, 6.0, 6.0, 6.0])[:, None, None, None]
    draws = centres + np.random.default_rng(0).normal(size=(4, 50, 20, 1))
    log_density = lambda z: np.logaddexp(*(-0.5 * (np.asarray(z)[..., 0] - c) ** 2 for c in (-6, 6))) - np.log(2 * np.pi) / 2
    lower, upper = inference_gap._normaliser_bounds(jax.random.key(0), log_density, draws, num_importance=1_000)
    assert (lower < np.log(2)).all() and (upper > np.log(2)).all()
    assert (upper - lower > 1).all()


def test_bounds_of_a_few_draws_in_many_dimensions_are_apart(monkeypatch):
    """KL(N(0, 1) || N(.5, 1)) is 1/8 a dimension; both normalisers are bounded, of p from chains, of q where it is a product."""
    dim, size = 24, 10
    prior = specs.ModalitySpec(shape=(1,))
    zeros = jnp.zeros((size, 1))
    normal = lambda mean: lambda z: -0.5 * ((z - mean) ** 2).sum(-1)
    draw = lambda params, key, observed, *, num_samples: (0.5 + jax.random.normal(key, (num_samples, size, dim)), None)
    model = types.SimpleNamespace(
        latent_dim=dim,
        specs=dict.fromkeys("abc", prior),
        sample_posterior=draw,
        posterior_log_density=lambda p, o, z: normal(0.5)(z),
    )
    monkeypatch.setattr(inference_gap, "log_joint", lambda model, params, data, z: normal(0.0)(z))
    found = inference_gap.sampled_gap(model, {}, jax.random.key(0), {"a": zeros, "b": zeros}, num_draws=200, num_importance=400)
    exact = dim / 8
    assert found.lower.mean() < exact < found.upper.mean()
    assert (found.upper - found.lower).mean() > 0.1


def test_a_prior_of_the_models_own_is_the_one_of_its_posteriors(linear):
    _, params, data = linear
    model = mmvae.build(mmvae.Config(latent_dim=2, network=mlp.Config(hidden=()), family="laplace"), SPECS)
    params = jax.jit(model.init)(jax.random.key(0))
    observed = {"a": data["a"]}
    dense = params["decoders"]["a"]["params"]["Dense_0"]
    means = GRID.points @ np.asarray(dense["kernel"]) + np.asarray(dense["bias"])
    log_p = -0.5 * ((data["a"][:, None] - means) ** 2).sum(-1) / 0.8**2 + np.asarray(
        model.prior_log_density(params, jnp.asarray(GRID.points))
    )
    expected = log_p - np.log(np.exp(log_p + GRID.log_area).sum(-1, keepdims=True))
    found = inference_gap.true_posterior(model, params, observed, GRID)
    inside = expected > -20
    np.testing.assert_allclose(found[inside], expected[inside], atol=1e-3)
    assert np.abs(found - inference_gap.true_posterior(_without_prior(model), params, observed, GRID))[inside].max() > 0.1


def _without_prior(model):
    return dataclasses.replace(model, prior_log_density=None)


def test_bounds_need_several_draws_for_each_dimension(linear):
    model, params, data = linear
    with pytest.raises(ValueError, match="num_draws of at least 8 for 2 latent dimensions, got 7"):
        inference_gap.sampled_gap(model, params, jax.random.key(0), {"a": data["a"]}, num_draws=7)
    with pytest.raises(ValueError, match="at least 2 chains, got 1"):
        inference_gap.sampled_gap(model, params, jax.random.key(0), {"a": data["a"]}, config=hmc.Config(num_chains=1))


def test_averaging_the_joint_posterior_is_the_mixture(linear):
    model, params, data = linear
    partners = [{name: data[name][rows] for name in ("b", "c")} for rows in ([0, 1, 2], [3, 4, 5])]
    found = inference_gap.averaged_joint_posterior(model, params, {"a": data["a"][:2]}, partners, GRID)
    z = jnp.asarray(GRID.points[::5_000])
    for i, rows in enumerate(([0, 1, 2], [3, 4, 5])):
        parts = [
            model.posterior_log_density(
                params, {"a": data["a"][[i]], "b": data["b"][[row]], "c": data["c"][[row]]}, z[:, None]
            )[:, 0]
            for row in rows
        ]  # fmt: skip
        np.testing.assert_allclose(found[i, ::5_000], np.log(np.mean(np.exp(parts), 0)), rtol=1e-5)


def test_a_classifier_tells_draws_apart_only_where_they_differ():
    rng = np.random.default_rng(0)
    p, q, far = rng.normal(size=(3, 2_000, 2, 3)) + np.asarray([0, 0, 3.0])[:, None, None, None]
    standard_error = 0.5 / np.sqrt(2_000)
    assert np.abs(inference_gap.two_sample_accuracy(p, q) - 0.5).max() < 5 * standard_error
    assert inference_gap.two_sample_accuracy(p, far).min() > 0.95


def test_neighbours_and_their_average():
    features, others = np.asarray([[0.0], [10.0]]), np.asarray([[9.0], [0.1], [11.0], [0.2]])
    found = inference_gap.neighbours(features, others, 2)
    assert [set(row) for row in found] == [{1, 3}, {0, 2}]
    assert [set(row) for row in inference_gap.neighbours(features, others, 9)] == [{0, 1, 2, 3}] * 2  # all that there are
    table = np.log(np.asarray([[0.1, 0.9], [0.5, 0.5], [0.3, 0.7], [0.7, 0.3]]))
    np.testing.assert_allclose(np.exp(inference_gap.average(table, found)), [[0.6, 0.4], [0.2, 0.8]])


def test_equal_examples_are_found():
    data = source.Source(specs={"a": specs.ModalitySpec(shape=(2,))}, arrays={"a": np.asarray([[1.0, 2], [0, 1], [1, 2]])})
    first, back = inference_gap.distinct(data, "a")
    np.testing.assert_array_equal(data.arrays["a"][first][back], data.arrays["a"])
    assert len(first) == 2


def test_a_grid_has_two_dimensions():
    model = jnf.build(jnf.Config(latent_dim=3, network=mlp.Config(hidden=())), SPECS)
    with pytest.raises(ValueError, match="latent space of 2 dimensions for a grid, got 3"):
        inference_gap.true_posterior(model, {}, {}, GRID)


def test_every_subset_has_a_gap(linear):
    assert len(subsets.proper(tuple(SPECS))) == 6
    assert min(gap_on_grid(linear, subset).min() for subset in subsets.proper(tuple(SPECS))) > -1e-6


def test_densities_that_are_not_numbers_have_no_gap():
    grid = inference_gap.make_grid(num=11)
    flat = np.full((1, 121), -np.log(121.0) - grid.log_area)
    np.testing.assert_allclose(inference_gap.kl_on_grid(flat, flat, grid), 0, atol=1e-12)
    assert np.isnan(inference_gap.kl_on_grid(flat * np.nan, flat, grid)).all()
