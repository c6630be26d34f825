"""The score on an exact linear-Gaussian model: its value is known, and no other posterior has a larger one."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest

from jnf_jax import specs as specs_lib
from jnf_jax.data import linear_gaussian
from jnf_jax.metrics import subset_score
from jnf_jax.models import base
from jnf_jax.posteriors import product, smc

CONFIG = linear_gaussian.Config(latent_dim=3, dims=(2, 3, 2, 4, 3), scale=0.8, num_test=40)
MAPS = linear_gaussian.maps(CONFIG)
NAMES = tuple(MAPS)
TEST = linear_gaussian.build(CONFIG, "test").arrays
ELSEWHERE = oracle.Codes(np.asarray([0.8, -0.5, 0.0]), np.asarray([[0.6, 0.3, 0.0], [0.3, 0.5, 0.1], [0.0, 0.1, 0.9]]))
CODES = np.random.default_rng(0).normal(size=(50, 40, 3))


def exact(names):
    return oracle.exact_experts(MAPS, {name: TEST[name] for name in names}, ELSEWHERE)


def model(kind, width=1.0, shift=0.0):
    """The exact model, or one whose experts are `width` times as wide as they should be, or off by `shift` of their widths."""
    rule = oracle.rule(kind)

    def bases(observed):
        found = exact(tuple(observed))
        scale = width * found.base.scale
        return found.shared, found.base._replace(loc=found.base.loc + shift * scale, scale=scale)

    def density(params, observed, z):
        return product.log_densities(rule, *bases(observed), z)

    def log_normaliser(params, key, observed, *, config):
        return product.log_normaliser(rule, bases(observed)[0], key, bases(observed)[1], outside=None, config=config)

    absent = dict.fromkeys(("sample_prior", "sample_posterior", "decode", "log_likelihood", "elbo", "init"))
    specs = {name: specs_lib.ModalitySpec(shape=TEST[name].shape[1:]) for name in NAMES}
    return base.Model(
        specs=specs, latent_dim=3, stages=(), posterior_log_density=density, log_normaliser=log_normaliser, **absent
    )


def codes(names):
    """Draws of the exact p(z | x_S): for a score whose value is known they may stand for codes."""
    found = exact(names)
    return jnp.asarray(found.mean + CODES @ np.linalg.cholesky(found.covariance).T), found


def score(model, names, z):
    observed = {name: TEST[name] for name in names}
    return subset_score.score(
        model, {}, jax.random.key(0), observed, z, config=smc.Config(num_particles=64, num_temperatures=12)
    )


@pytest.mark.parametrize("kind", ["pooled"])
@pytest.mark.parametrize("size", [2, 4])
def test_the_score_is_the_exact_one_within_its_standard_error(kind, size):
    z, found = codes(NAMES[:size])
    values = score(model(kind), NAMES[:size], z).values
    one = lambda z, mean: jax.scipy.stats.multivariate_normal.logpdf(z, mean, found.covariance)
    expected = jax.vmap(jax.vmap(one), (0, None))(z, jnp.asarray(found.mean)).mean(0)
    difference = values - np.asarray(expected)
    assert difference.std() < 0.3
    assert abs(difference.mean()) < 5 * difference.std(ddof=1) / np.sqrt(len(difference)) + difference.var() / 2


@functools.cache
def right_score():
    z, _ = codes(NAMES[:3])
    return z, score(model("pooled"), NAMES[:3], z).values


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(model("pooled", width=0.8), id="experts too narrow"),
        pytest.param(model("pooled", shift=0.4), id="experts off"),
        pytest.param(model("prior"), id="the published product, where codes do not follow the prior"),
    ],
)
def test_other_posteriors_score_lower(wrong):
    z, right = right_score()
    difference = right - score(wrong, NAMES[:3], z).values
    assert difference.mean() > 5 * difference.std(ddof=1) / np.sqrt(len(difference))


def test_equal_laws_cannot_be_told_apart_and_others_can():
    rng = np.random.default_rng(0)
    one, same, other = rng.normal(size=(800, 3)), rng.normal(size=(800, 3)), 1.6 * rng.normal(size=(800, 3))
    assert abs(subset_score.two_sample_accuracy(one, same) - 0.5) < 5 * 0.5 / np.sqrt(800)
    assert subset_score.two_sample_accuracy(one, other) > 0.5 + 5 * 0.5 / np.sqrt(800)


def test_few_draws_that_are_far_apart_are_told_apart():
    near, far = np.random.default_rng(0).normal(size=(2, 20, 3)) + np.asarray([0, 100])[:, None, None]
    assert subset_score.two_sample_accuracy(near, far) > 0.9
