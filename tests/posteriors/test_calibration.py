"""Simulation-based calibration (Talts et al., 2018) of the product sampler with exact experts.

If z comes from the prior and x from p(x | z), then z's rank among draws of the exact p(z | x_S) is uniform, coordinate by coordinate.
"""

import jax
import numpy as np
import oracle
import pytest
import scipy.stats

from jnf_jax.data import linear_gaussian
from jnf_jax.posteriors import hmc, product

NUM_SIMULATIONS = 5_000
NUM_DRAWS = 15
NUM_BINS = NUM_DRAWS + 1
CONFIG = linear_gaussian.Config(latent_dim=3, dims=(2, 3, 2, 4, 3), scale=1.5)
SUBSETS = [("x0", "x1"), ("x1", "x2", "x4"), ("x0", "x1", "x2", "x3")]
SMALLEST_P = 1e-4  # of a chi-squared test; 9 of them in all


def ranks(subset):
    """Ranks `[N, D]` in 0..NUM_DRAWS; draws of one chain far enough apart to be independent."""
    rng = np.random.default_rng(0)
    maps = linear_gaussian.maps(CONFIG)
    z = rng.normal(size=(NUM_SIMULATIONS, CONFIG.latent_dim))
    observed = {}
    for name in subset:
        m = maps[name]
        observed[name] = z @ m.weight.T + m.bias + m.scale * rng.normal(size=(NUM_SIMULATIONS, len(m.bias)))
    config = hmc.Config(num_chains=5, thinning=10, num_warmup=100)
    draws, info = oracle.sample_product(
        oracle.exact_experts(maps, observed), jax.random.key(1), num_samples=NUM_DRAWS, config=config
    )
    assert np.asarray(info.acceptance).mean() > 0.6
    return (np.asarray(draws) < z).sum(0)


def p_values(ranks):
    counts = np.stack([np.bincount(r, minlength=NUM_BINS) for r in ranks.T])
    return scipy.stats.chisquare(counts, axis=1).pvalue


@pytest.mark.slow
@pytest.mark.parametrize("subset", SUBSETS, ids="+".join)
def test_ranks_are_uniform(subset):
    assert p_values(ranks(subset)).min() > SMALLEST_P


@pytest.mark.slow
@pytest.mark.parametrize("wrong", [lambda num: 1, lambda num: num], ids=["once", "too often"])
def test_ranks_show_a_wrong_prior_power(monkeypatch, wrong):
    monkeypatch.setattr(product, "power", wrong)
    assert p_values(ranks(SUBSETS[-1])).min() < SMALLEST_P
