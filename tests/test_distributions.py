import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from jnf_jax import distributions, types

DIM, NUM = 3, 40_000


def gaussian(full):
    """One Gaussian, its mean and its covariance."""
    rng = np.random.default_rng(0)
    loc, scale = rng.normal(size=DIM), rng.uniform(0.3, 1.5, DIM)
    lower = np.tril(rng.normal(size=(DIM, DIM)), -1) if full else None
    factor = scale[:, None] * (np.eye(DIM) + (lower if full else 0))
    return types.Gaussian(*jax.tree.map(jnp.asarray, (loc, scale, lower))), loc, factor @ factor.T


@pytest.mark.parametrize("full", [False, True])
def test_densities_are_those_of_scipy(full):
    q, mean, covariance = gaussian(full)
    z = np.random.default_rng(1).normal(size=(5, DIM))
    expected = scipy.stats.multivariate_normal(mean, covariance).logpdf(z)
    np.testing.assert_allclose(distributions.gaussian_log_prob(q, jnp.asarray(z)), expected, rtol=1e-10)


@pytest.mark.parametrize("full", [False, True])
def test_draws_have_the_moments_of_the_gaussian(full):
    q, mean, covariance = gaussian(full)
    z = np.asarray(jax.vmap(lambda key: distributions.gaussian_sample(key, q))(jax.random.split(jax.random.key(0), NUM)))
    scale = np.sqrt(np.diag(covariance))
    assert np.abs((z.mean(0) - mean) / scale).max() < 4.5 / np.sqrt(NUM)
    error = (np.cov(z.T) - covariance) / np.outer(scale, scale)
    assert np.abs(error).max() < 4.5 * np.sqrt(2 / NUM)  # the standard error of a variance; a covariance's is no larger


@pytest.mark.parametrize("full", [False, True])
def test_the_divergence_from_the_prior_is_the_closed_form(full):
    q, mean, covariance = gaussian(full)
    expected = 0.5 * (np.trace(covariance) + mean @ mean - DIM - np.linalg.slogdet(covariance)[1])
    np.testing.assert_allclose(distributions.kl_to_standard_normal(q), expected, rtol=1e-10)
