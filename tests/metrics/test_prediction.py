import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.metrics

from jnf_jax import specs
from jnf_jax.likelihoods import base
from jnf_jax.metrics import prediction

RNG = np.random.default_rng(0)


def quality(spec, parameters, x):
    return prediction.quality(spec, prediction.expected(spec, jnp.asarray(parameters)), x)


def test_explained_variance_is_r_squared_weighted_by_variance():
    x = RNG.normal(size=(50, 3)) * [1, 2, 3]
    draws = x + RNG.normal(size=(4, 50, 3))
    expected = sklearn.metrics.r2_score(x, draws.mean(0), multioutput="variance_weighted")
    assert quality(specs.ModalitySpec(shape=(3,)), draws, x) == pytest.approx(expected, rel=1e-5)
    assert quality(specs.ModalitySpec(shape=(3,)), np.broadcast_to(x.mean(0), (1, 50, 3)), x) == pytest.approx(0, abs=1e-6)
    assert np.isnan(quality(specs.ModalitySpec(shape=(3,)), draws, np.ones((50, 3))))


def test_probabilities_are_averaged_before_a_category_is_chosen():
    spec = specs.ModalitySpec(shape=(1,), likelihood="categorical", num_categories=3)
    sure, unsure = np.log([0.9, 0.05, 0.05]), np.log([0.3, 0.4, 0.3])
    logits = np.stack([sure, unsure, unsure])[:, None, None]  # most draws say 1, their mean 0
    assert quality(spec, logits, np.asarray([[0]])) == 1
    assert quality(spec, logits, np.asarray([[1]])) == 0


def test_accuracy_of_ones_is_over_all_entries():
    spec = specs.ModalitySpec(shape=(2,), likelihood="bernoulli")
    logits = np.asarray([[[4.0, -4.0]], [[-1.0, -4.0]]])  # .62 and .02 on average
    assert quality(spec, logits, np.asarray([[1, 1]])) == 0.5
    assert prediction.kind(spec) == "accuracy"


def test_counts_are_compared_as_encoders_see_them():
    spec = specs.ModalitySpec(shape=(2,), likelihood="negative_binomial", library=40.0)
    x = np.asarray([[10, 30], [300, 100]])  # an example's own total counts, not the library
    proportions = np.log(x / x.sum(1, keepdims=True))
    parameters = np.stack([proportions, np.zeros((2, 2))], -1)[None]
    assert quality(spec, parameters, x) == pytest.approx(1, abs=1e-6)
    assert prediction.kind(spec) == "explained variance"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(base.Config):
    values = "counts"


def build(config, spec):
    return base.Likelihood(link=jnp.asarray, log_prob=None, mean=jnp.exp, sample=None)


def test_counts_of_ones_own_likelihood_are_compared_as_they_are_seen_too():
    spec, x = specs.ModalitySpec(shape=(3,), likelihood=Config()), RNG.poisson(20, (50, 3)) + 1
    assert quality(spec, np.log(x)[None], x) == pytest.approx(1, abs=1e-6)
    expected = sklearn.metrics.r2_score(np.log1p(x), np.log1p(2 * x), multioutput="variance_weighted")
    assert quality(spec, np.log(2 * x)[None], x) == pytest.approx(expected, rel=1e-5)
