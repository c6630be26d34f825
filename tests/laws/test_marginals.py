"""What every density of the codes obeys."""

import functools

import discover
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from jnf_jax import configs
from jnf_jax.flows import maf
from jnf_jax.marginals import mixture

SMALL = {"num_components": (2, 3), "base": mixture.Config(num_components=(3,)), "flow": maf.Config(hidden=(8,), widening=True)}


def small(module):
    fields = module.Config.__dataclass_fields__
    return module.Config(**{name: value for name, value in SMALL.items() if name in fields})


MARGINALS = [small(module) for module in discover.modules("marginals")]
MARGINALS.append(mixture.Config(num_components=(3,), covariance="diagonal"))
LABELS = [discover.name(config) for config in MARGINALS[:-1]] + ["diagonal mixture"]


def codes(seed, num, dim=2):
    """Two clusters, turned and of unequal weight."""
    rng = np.random.default_rng(seed)
    first = rng.random(num) < 0.3
    spread = rng.normal(size=(num, dim)) @ np.linalg.qr(np.random.default_rng(0).normal(size=(dim, dim)))[0] * 0.4
    return np.where(first[:, None], 1.5, -0.8) + spread * np.linspace(0.5, 1.5, dim)


@pytest.fixture(params=MARGINALS, ids=LABELS)
def fitted(request):
    marginal = configs.build(request.param, 2)
    params = marginal.init(jax.random.key(0))
    if marginal.fit is not None:
        found = marginal.fit(0, codes(0, 2_000), codes(1, 500))
        assert jax.tree.map(jnp.shape, found) == jax.tree.map(jnp.shape, params)  # a checkpoint of it can be read back
        params = jax.tree.map(jnp.asarray, found)
    return marginal, params


def test_the_density_integrates_to_one(fitted):
    marginal, params = fitted
    line = np.linspace(-8, 8, 401)
    grid = jnp.asarray(np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2))
    density = jnp.exp(jax.jit(jax.vmap(lambda z: marginal.log_density(params, z)))(grid))
    np.testing.assert_allclose(density.sum() * (line[1] - line[0]) ** 2, 1, atol=1e-4)


def test_draws_follow_the_density(fitted):
    """The mean of any function of draws is its integral against the density, within 5 standard errors."""
    marginal, params = fitted
    draws = jax.jit(lambda key: marginal.sample(params, key, num_samples=40_000))(jax.random.key(1))
    line = np.linspace(-8, 8, 401)
    grid = np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2)
    density = np.exp(np.asarray(jax.jit(jax.vmap(lambda z: marginal.log_density(params, z)))(jnp.asarray(grid))))
    density *= (line[1] - line[0]) ** 2
    for function in (lambda z: z[:, 0], lambda z: z[:, 0] * z[:, 1], lambda z: np.cos(2 * z[:, 1]), lambda z: (z**2).sum(1)):
        values = function(np.asarray(draws))
        error = abs(values.mean() - (function(grid) * density).sum()) / (values.std() / np.sqrt(len(values)))
        assert error < 5


def test_what_is_trimmed_had_no_weight(fitted):
    marginal, params = fitted
    trimmed, z = marginal.trim(params), 3 * jax.random.normal(jax.random.key(2), (50, 2))
    expected, found = (jax.vmap(lambda z, p=p: marginal.log_density(p, z))(z) for p in (params, trimmed))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    inside = jax.jit(lambda params: marginal.trim(params))(params)
    assert jax.tree.map(jnp.shape, inside) == jax.tree.map(jnp.shape, params)


def test_gradients_are_finite_far_out(fitted):
    marginal, params = fitted
    for radius in (10.0, 100.0):
        z = radius * jnp.asarray([[1.0, 0.0], [-0.6, 0.8]])
        assert jnp.isfinite(jax.vmap(jax.grad(lambda z: marginal.log_density(params, z)))(z)).all()


def test_a_fitted_density_expects_held_out_codes_more_than_the_prior_does(fitted):
    marginal, params = fitted
    z = jnp.asarray(codes(2, 1_000))
    found = jax.vmap(lambda z: marginal.log_density(params, z))(z)
    prior = jax.scipy.stats.norm.logpdf(z).sum(-1)
    if marginal.fit is None:
        np.testing.assert_allclose(found, prior, rtol=1e-5)
    else:
        assert found.mean() > prior.mean() + 0.5


def test_held_out_codes_choose_the_number_of_components():
    marginal = mixture.build(mixture.Config(num_components=(1, 2, 30)), 2)
    params = marginal.fit(0, codes(0, 300), codes(1, 1_000))
    assert (params["log_weights"] > -100).sum() == 2
    assert params["log_weights"].shape == (30,)
    assert jax.tree.map(jnp.shape, marginal.trim(params)) == {"log_weights": (2,), "loc": (2, 2), "whitening": (2, 2, 2)}


def test_too_few_codes_are_refused():
    with pytest.raises(ValueError, match="at least 3 codes"):
        mixture.fit(mixture.Config(num_components=(3,)), 0, codes(0, 2), codes(0, 2))


def test_a_diagonal_mixture_is_right_where_its_components_are_narrow_and_far_apart():
    dim, rng = 512, np.random.default_rng(0)
    loc, scale = rng.normal(size=(5, dim)), np.full((5, dim), 0.05)  # the default ridge leaves scales of .03
    z = loc[2] + scale[2] * rng.normal(size=dim)
    expected = scipy.stats.norm.logpdf(z, loc[2], scale[2]).sum() - np.log(5)  # the others are nowhere near
    params = {"log_weights": np.zeros(5), "loc": loc, "whitening": 1 / scale}
    found = mixture.log_density(*jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), (params, z)))
    np.testing.assert_allclose(found, expected, atol=5 * 0.02)  # .02 is a rounding of sum (z^2 + c^2) / C


def test_derivatives_of_a_diagonal_mixture_are_those_of_its_formula():
    keys = jax.random.split(jax.random.key(0), 4)
    params = {
        "log_weights": jax.random.normal(keys[0], (4,)),
        "loc": jax.random.normal(keys[1], (4, 3)),
        "whitening": jnp.exp(jax.random.normal(keys[2], (4, 3))),
    }
    z = jax.random.normal(keys[3], (3,))

    def formula(params, z):
        each = jax.scipy.stats.norm.logpdf(z, params["loc"], 1 / params["whitening"]).sum(-1)
        return jax.nn.logsumexp(each + jax.nn.log_softmax(params["log_weights"]))

    for derivative in (jax.value_and_grad, jax.jacfwd):
        for argnums in ((0, 1), (0,), (1,)):
            found, expected = (derivative(f, argnums=argnums)(params, z) for f in (mixture.log_density, formula))
            jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5), found, expected)
    found, expected = (jax.hessian(f, argnums=1)(params, z) for f in (mixture.log_density, formula))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
