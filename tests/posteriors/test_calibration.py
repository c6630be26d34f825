"""Simulation-based calibration (Talts et al., 2018) of the product sampler with exact experts, by the published rule and by the default.

If z comes from the codes' density (the prior by the published rule) and x from p(x | z), then the rank of h(z) among draws of the exact p(z | x_S) is uniform for any h: here each
coordinate, and the prior's log density. The coordinates alone are blind to a prior divided out once too often: for Gaussians of precision P the
draws' variance, 1 / (P - 1), is then also the variance of z about their mean (Modrak et al., 2023, on such test quantities).
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
import scipy.stats

from jnf_jax.data import linear_gaussian
from jnf_jax.posteriors import hmc, product

NUM_SIMULATIONS = 5_000
NUM_DRAWS = 15
NUM_BINS = NUM_DRAWS + 1
CONFIG = linear_gaussian.Config(latent_dim=3, dims=(2, 3, 2, 4, 3), scale=3.0)  # wide posteriors: the power shows
SUBSETS = [("x0", "x1"), ("x1", "x2", "x4"), ("x0", "x1", "x2", "x3")]
SMALLEST_P = 1e-4  # of a chi-squared test; 24 of them in all
ELSEWHERE = oracle.Codes(np.asarray([0.8, -0.5, 0.0]), np.asarray([[0.6, 0.3, 0.0], [0.3, 0.5, 0.1], [0.0, 0.1, 0.9]]))
FLAT = dataclasses.replace(oracle.MARGINAL, log_density=lambda params, z: jnp.zeros((), z.dtype))


def ranks(subset, kind="prior", marginal=oracle.MARGINAL, mutate=lambda exact: exact):
    """Ranks `[N, D + 1]` in 0..NUM_DRAWS; draws of one chain far enough apart to be independent."""
    rng = np.random.default_rng(0)
    maps = linear_gaussian.maps(CONFIG)
    codes = oracle.standard(CONFIG.latent_dim) if kind == "prior" else ELSEWHERE
    z = rng.multivariate_normal(codes.mean, codes.covariance, size=NUM_SIMULATIONS)
    observed = {}
    for name in subset:
        m = maps[name]
        observed[name] = z @ m.weight.T + m.bias + m.scale * rng.normal(size=(NUM_SIMULATIONS, len(m.bias)))
    config = hmc.Config(num_chains=5, thinning=25, num_warmup=100)
    exact = mutate(oracle.exact_experts(maps, observed, codes))
    draws, info = oracle.sample_product(
        exact, jax.random.key(1), num_samples=NUM_DRAWS, config=config, kind=kind, marginal=marginal
    )
    assert np.asarray(info.acceptance).mean() > 0.6
    return (quantities(np.asarray(draws)) < quantities(z)).sum(0)


def quantities(z):
    return np.concatenate([z, (z**2).sum(-1, keepdims=True)], axis=-1)


def p_values(ranks):
    counts = np.stack([np.bincount(r, minlength=NUM_BINS) for r in ranks.T])
    return scipy.stats.chisquare(counts, axis=1).pvalue


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["prior", "pooled"])
@pytest.mark.parametrize("subset", SUBSETS, ids="+".join)
def test_ranks_are_uniform(subset, kind):
    assert p_values(ranks(subset, kind)).min() > SMALLEST_P


@pytest.mark.slow
@pytest.mark.parametrize("wrong", [lambda num: 1, lambda num: num], ids=["once", "too often"])
def test_ranks_show_a_wrong_prior_power(monkeypatch, wrong):
    monkeypatch.setattr(product, "power", wrong)
    assert p_values(ranks(SUBSETS[-1])).min() < SMALLEST_P


def shifted_divisors(exact):
    divisors = exact.shared.divisors
    return exact._replace(shared=exact.shared._replace(divisors=divisors._replace(loc=divisors.loc + 0.5)))


def the_priors_marginal(exact):
    dim = exact.base.loc.shape[-1]
    marginal = {"log_weights": jnp.zeros(1), "loc": jnp.zeros((1, dim)), "whitening": jnp.eye(dim)[None]}
    return exact._replace(shared=exact.shared._replace(marginal=marginal))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "marginal", "mutate"),
    [
        ("pooled", FLAT, lambda exact: exact),
        ("marginal", FLAT, lambda exact: exact),
        ("pooled", oracle.MARGINAL, shifted_divisors),
        ("marginal", oracle.MARGINAL, the_priors_marginal),
    ],
    ids=["half of the codes' density forgotten", "all of it forgotten", "shifted divisors", "the prior in its place"],
)
def test_ranks_show_a_wrong_density_of_the_codes(kind, marginal, mutate):
    assert p_values(ranks(SUBSETS[-1], kind, marginal, mutate)).min() < SMALLEST_P
