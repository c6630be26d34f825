"""Products and mixtures of Gaussians against their definitions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jnf_jax import distributions, types
from jnf_jax.posteriors import gaussian, mixture

RNG = np.random.default_rng(0)


def experts(num=3, size=4, dim=2):
    return types.Gaussian(jnp.asarray(RNG.normal(size=(num, size, dim))), jnp.asarray(RNG.uniform(0.3, 0.9, (num, size, dim))))


@pytest.mark.parametrize("power", [1, 0, -2])
def test_a_product_is_that_of_the_densities_up_to_a_constant(power):
    each = experts()
    product = gaussian.product(each, power=power)
    z = jnp.asarray(RNG.normal(size=(50, 1, 2)))
    expected = distributions.gaussian_log_prob(each, z[:, None]).sum(1) + power * distributions.standard_normal_log_prob(z)
    difference = distributions.gaussian_log_prob(product, z) - expected
    np.testing.assert_allclose(difference, jnp.broadcast_to(difference[:1], difference.shape), atol=1e-8)


def test_an_absent_expert_does_not_count():
    each = experts()
    present = jnp.asarray([[True] * 4, [False] * 4, [True, False, True, False]])
    product = gaussian.product(each, power=1, present=present)
    for b in range(4):
        kept = jax.tree.map(lambda leaf: leaf[present[:, b], b], each)
        jax.tree.map(lambda a, e: np.testing.assert_allclose(a[b], e, rtol=1e-12), product, gaussian.product(kept, power=1))


def test_an_improper_product_is_not_finite():
    wide = types.Gaussian(jnp.zeros((2, 1, 1)), jnp.full((2, 1, 1), 1.5))
    assert not jnp.isfinite(gaussian.product(wide, power=-1).scale).any()
    assert jnp.isfinite(gaussian.product(jax.vmap(gaussian.confined)(wide), power=-1).scale).all()


@pytest.mark.parametrize("family", distributions.FAMILIES)
def test_a_mixtures_density_integrates_to_one_and_its_draws_have_its_moments(family):
    components = experts(num=3, size=2, dim=1)
    present = jnp.asarray([[True, True], [True, False], [True, True]])
    mixed = mixture.uniform(components, present)
    grid = jnp.linspace(-25, 25, 20_001)[:, None, None]
    density = np.exp(mixture.log_prob(mixed, grid, family=family))
    np.testing.assert_allclose(np.trapezoid(density, grid[:, 0, 0], axis=0), 1, rtol=1e-4)
    num = 20_000
    draws = jax.vmap(lambda key: mixture.sample(key, mixed, family=family))(jax.random.split(jax.random.key(0), num))
    values = np.asarray(grid[:, 0, 0])[:, None]
    for power in (1, 2):
        moment, spread = (np.trapezoid(values**p * density, values, axis=0) for p in (power, 2 * power))
        error = np.asarray(draws[..., 0] ** power).mean(0) - moment
        assert (np.abs(error) < 5 * np.sqrt((spread - moment**2) / num)).all()


def test_kl_between_gaussians_is_that_of_their_densities():
    first, second = (jax.tree.map(lambda leaf: leaf[0], experts()) for _ in range(2))
    np.testing.assert_allclose(
        distributions.kl_between(first, distributions.standard((4, 2))), distributions.kl_to_standard_normal(first), rtol=1e-10
    )
    num = 20_000
    z = jax.vmap(lambda key: distributions.gaussian_sample(key, first))(jax.random.split(jax.random.key(0), num))
    ratio = distributions.gaussian_log_prob(first, z) - distributions.gaussian_log_prob(second, z)
    error = np.asarray(ratio.mean(0) - distributions.kl_between(first, second))
    assert (np.abs(error) < 5 * np.asarray(ratio.std(0)) / np.sqrt(num)).all()
