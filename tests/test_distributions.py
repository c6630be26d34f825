import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from jnf_jax import distributions, specs, types
from jnf_jax.likelihoods import heteroscedastic, negative_binomial, zero_inflated
from jnf_jax.networks import mlp

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


COUNTS = specs.ModalitySpec(shape=(4,), likelihood="negative_binomial", library=50.0)


def counts_parameters(seed=0, num=6):
    """Parameters of counts `[num, 4, 2]`, and scipy's mean and dispersion for a library `[num, 1]`."""
    parameters = distributions.link(COUNTS, jax.random.normal(jax.random.key(seed), (num, 4, 2)) * jnp.asarray([1.0, 2.0]))
    proportion, dispersion = np.exp(np.moveaxis(np.asarray(parameters), -1, 0))
    return parameters, proportion, dispersion


def nbinom(mean, dispersion):
    return scipy.stats.nbinom(dispersion, dispersion / (dispersion + mean))


@pytest.mark.parametrize("dtype", [np.uint16, np.uint32, np.int64, np.float32])
def test_counts_have_the_density_of_scipy_at_their_own_total(dtype):
    parameters, proportion, dispersion = counts_parameters()
    x = np.random.default_rng(0).poisson(9, (6, 4)).astype(dtype)
    expected = nbinom(x.sum(1, keepdims=True) * proportion, dispersion).logpmf(x).sum(1)
    found = distributions.log_likelihood(COUNTS, parameters, distributions.canonical(COUNTS, x))
    np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_a_total_of_nothing_has_a_finite_density():
    parameters, proportion, dispersion = counts_parameters()
    found = distributions.log_likelihood(COUNTS, parameters, jnp.zeros((6, 4)))
    np.testing.assert_allclose(found, nbinom(proportion, dispersion).logpmf(0).sum(1), rtol=1e-10)


def test_counts_of_a_library_sum_to_one_and_have_its_mean_and_variance():
    parameters, proportion, dispersion = counts_parameters()
    library, x = 30.0, np.arange(200_000.0)[:, None]
    # the heavier tails are summed less far than float64 reaches
    few = np.flatnonzero(dispersion[0] > 0.05)
    assert len(few) > 1
    log_prob = np.asarray(negative_binomial.log_prob(parameters[0], jnp.asarray(library), jnp.asarray(x)))[:, few]
    mass, mean = np.exp(log_prob), library * proportion[0, few]
    np.testing.assert_allclose(mass.sum(0), 1, rtol=1e-8)
    np.testing.assert_allclose((mass * x).sum(0), mean, rtol=1e-8)
    variance = mean + mean**2 / dispersion[0, few]
    np.testing.assert_allclose((mass * (x - mean) ** 2).sum(0), variance, rtol=1e-8)


def test_generated_counts_have_the_total_of_the_library():
    parameters, proportion, _ = counts_parameters()
    found = distributions.mean(COUNTS, parameters)
    np.testing.assert_allclose(found, 50 * proportion, rtol=1e-10)
    np.testing.assert_allclose(found.sum(1), 50, rtol=1e-10)


@pytest.mark.parametrize("raw", [0.0, 30.0, -30.0, 1e4, -1e4])
@pytest.mark.parametrize("count", [0.0, 3.0, 1e6])
def test_gradients_of_counts_are_finite_in_float32(raw, count):
    def loss(raw):
        return distributions.log_likelihood(COUNTS, distributions.link(COUNTS, raw), jnp.full(4, count, jnp.float32))

    value, gradient = jax.value_and_grad(loss)(jnp.full((4, 2), raw, jnp.float32).at[0, 0].add(1))
    assert jnp.isfinite(value)
    assert jnp.isfinite(gradient).all()


def test_large_dispersions_are_exact_in_float32():
    raw = jnp.zeros((4, 2), jnp.float32).at[:, 1].set(1e3)
    parameters = distributions.link(COUNTS, raw)
    x = jnp.asarray([2.0, 5.0, 1.0, 4.0], jnp.float32)
    expected = nbinom(3.0, np.exp(10.0)).logpmf(np.asarray(x)).sum()
    np.testing.assert_allclose(distributions.log_likelihood(COUNTS, parameters, x), expected, rtol=1e-5)


def test_counts_that_are_lost_have_the_density_of_scipy_at_their_own_total():
    spec = specs.ModalitySpec(shape=(4,), likelihood=zero_inflated.Config(), library=50.0)
    assert spec.parameter_shape == (4, 3)
    raw = np.asarray(jax.random.normal(jax.random.key(0), (6, 4, 3)))
    parameters = distributions.link(spec, jnp.asarray(raw))
    share, dispersion = scipy.special.softmax(raw[..., 0], axis=1), np.exp(10 * np.tanh(raw[..., 1] / 10))
    lost = scipy.special.expit(10 * np.tanh(raw[..., 2] / 10))
    share /= (share * (1 - lost)).sum(1, keepdims=True)  # what is left of a total is the total
    x = np.random.default_rng(0).poisson(1, (6, 4))
    assert (x == 0).any()
    counted = nbinom(x.sum(1, keepdims=True) * share, dispersion).pmf(x)
    expected = np.log(lost * (x == 0) + (1 - lost) * counted).sum(1)
    np.testing.assert_allclose(distributions.log_likelihood(spec, parameters, jnp.asarray(x)), expected, rtol=1e-10)
    np.testing.assert_allclose(distributions.mean(spec, parameters), (1 - lost) * 50 * share, rtol=1e-10)
    np.testing.assert_allclose(distributions.mean(spec, parameters).sum(1), 50, rtol=1e-10)
    draws = draw_many(spec, jax.random.key(1), parameters, 20_000)
    check_share(draws == 0, lost + (1 - lost) * nbinom(50 * share, dispersion).pmf(0))
    check_share(draws == 2, (1 - lost) * nbinom(50 * share, dispersion).pmf(2))


def test_a_learnt_scale_is_within_a_factor_of_the_specs():
    spec = specs.ModalitySpec(shape=(3,), likelihood=heteroscedastic.Config(factor=4.0), scale=0.5)
    raw = jnp.asarray([[[1.0, 0.0], [2.0, 0.7], [3.0, -0.7]], [[0.0, 1e4], [0.0, -1e4], [0.0, 0.0]]])
    parameters = distributions.link(spec, raw)
    scale = 0.5 * 4 ** np.tanh(np.asarray(raw[..., 1]) / np.log(4))
    np.testing.assert_allclose(scale[1], [2, 0.125, 0.5])
    x = np.random.default_rng(0).normal(size=(2, 3))
    expected = scipy.stats.norm(np.asarray(raw[..., 0]), scale).logpdf(x).sum(1)
    np.testing.assert_allclose(distributions.log_likelihood(spec, parameters, jnp.asarray(x)), expected, rtol=1e-10)
    draws = draw_many(spec, jax.random.key(1), parameters, 20_000)
    check_share(draws < np.asarray(raw[..., 0]) + scale, np.full((2, 3), scipy.stats.norm.cdf(1)))


@pytest.mark.parametrize("factor", [1.0, 0.5, np.inf])
def test_a_factor_is_above_one(factor):
    with pytest.raises(ValueError, match="a finite factor above 1"):
        heteroscedastic.Config(factor=factor)


def test_encoders_see_log_counts():
    x = np.asarray([[0, 1, 9, 60_000]], np.uint16)
    np.testing.assert_allclose(distributions.network_input(COUNTS, x), np.log1p(x.astype(float)), rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"likelihood": "negative_binomial"},
            "a library for a modality of counts given their total and for no other, got None",
        ),
        ({"library": 3.0}, "a library for a modality of counts given their total and for no other, got 3.0 for gaussian"),
        ({"likelihood": "poisson"}, "a likelihood of .*'negative_binomial'.*, or the config of a likelihood, got 'poisson'"),
        ({"likelihood": mlp.Config()}, "or the config of a likelihood, got Config"),
        ({"likelihood": zero_inflated.Config(), "num_categories": 3}, "num_categories .* got 3 for zero_inflated"),
        ({"likelihood": zero_inflated.Config()}, "a library for a modality of counts .*, got None for zero_inflated"),
        (
            {"likelihood": "negative_binomial", "library": 3.0, "shape": (1,)},
            "two or more counts, among which negative_binomial shares",
        ),
        ({"likelihood": "negative_binomial", "library": 0.0}, "a positive library, got 0.0"),
    ],
)
def test_a_library_belongs_to_counts(options, message):
    with pytest.raises(ValueError, match=message):
        specs.ModalitySpec(**{"shape": (4,), **options})


@pytest.mark.parametrize("shape", [3, (), (0,), (2.0,)])
def test_a_shape_is_one_or_more_positive_integers(shape):
    with pytest.raises(ValueError, match="a shape of one or more positive integers"):
        specs.ModalitySpec(shape=shape)


def test_a_shape_may_be_of_numpys_integers():
    assert specs.ModalitySpec(shape=(np.int64(3),)).shape == (3,)


@pytest.mark.parametrize("scale", [0.0, -1.0, np.inf, np.nan])
def test_a_scale_is_positive_and_finite(scale):
    with pytest.raises(ValueError, match="a positive, finite scale"):
        specs.ModalitySpec(shape=(3,), scale=scale)


@pytest.mark.parametrize("dtype", [bool, np.int32, np.uint16])
def test_integers_of_a_support_are_8_bit(dtype):
    spec = specs.ModalitySpec(shape=(2,), likelihood="laplace", support=(0.0, 2.0))
    np.testing.assert_allclose(distributions.canonical(spec, np.asarray([[0, 255]], np.uint8)), [[0, 2]])
    with pytest.raises(ValueError, match=f"floats or uint8 for a modality with a support, got {np.dtype(dtype)}"):
        distributions.canonical(spec, np.zeros((1, 2), dtype))


@pytest.mark.parametrize("scale", [1e-25, 1e25])
def test_a_scale_whose_square_is_no_number_has_a_density(scale):
    gaussian = types.Gaussian(jnp.ones(2, jnp.float32), jnp.full(2, scale, jnp.float32))
    found = distributions.gaussian_log_prob(gaussian, gaussian.loc)
    np.testing.assert_allclose(found, -2 * np.log(scale) - np.log(2 * np.pi), rtol=1e-5)


REAL = {"shape": (2, 3), "scale": 0.3, "support": (-1.0, 3.0)}
LAWS = {
    "gaussian": (specs.ModalitySpec(**REAL), lambda p, x: scipy.stats.norm(p, 0.3).logpdf(x)),
    "laplace": (specs.ModalitySpec(likelihood="laplace", **REAL), lambda p, x: scipy.stats.laplace(p, 0.3).logpdf(x)),
    "bernoulli": (
        specs.ModalitySpec(shape=(2, 3), likelihood="bernoulli"),
        lambda p, x: scipy.stats.bernoulli(scipy.special.expit(p)).logpmf(x),
    ),
    "categorical": (
        specs.ModalitySpec(shape=(2, 3), likelihood="categorical", num_categories=4),
        lambda p, x: np.take_along_axis(p - scipy.special.logsumexp(p, axis=-1, keepdims=True), x[..., None], -1)[..., 0],
    ),
}


@pytest.mark.parametrize("likelihood", LAWS)
def test_log_likelihoods_and_means_are_those_of_scipy(likelihood):
    spec, log_prob = LAWS[likelihood]
    rng = np.random.default_rng(0)
    raw = 2 * rng.normal(size=(5, *spec.parameter_shape))
    parameters = np.asarray(distributions.link(spec, jnp.asarray(raw)))
    np.testing.assert_allclose(parameters, -1 + 4 * scipy.special.expit(raw) if spec.support else raw, rtol=1e-12)
    x = rng.integers(0, spec.num_categories or 2, (5, 2, 3)) if spec.support is None else rng.uniform(-1, 3, (5, 2, 3))
    found = distributions.log_likelihood(spec, jnp.asarray(parameters), distributions.canonical(spec, x))
    np.testing.assert_allclose(found, log_prob(parameters, x).sum((1, 2)), rtol=1e-10)
    expected = {"bernoulli": scipy.special.expit(raw), "categorical": raw.argmax(-1)}.get(likelihood, parameters)
    np.testing.assert_allclose(distributions.mean(spec, jnp.asarray(parameters)), expected, rtol=1e-12)


@pytest.mark.parametrize("likelihood", [*LAWS, "negative_binomial"])
def test_draws_have_the_probabilities_of_the_likelihood(likelihood):
    """Each of some events has its probability: below the mean or not, or one value."""
    num = 40_000
    key = jax.random.key(3)
    if likelihood == "negative_binomial":
        parameters, proportion, dispersion = counts_parameters()
        draws = draw_many(COUNTS, key, parameters, num)
        for value in (0, 1, 5):
            check_share(draws == value, nbinom(50 * proportion, dispersion).pmf(value))
        return
    spec, log_prob = LAWS[likelihood]
    parameters = jnp.asarray(np.random.default_rng(0).normal(size=(5, *spec.parameter_shape)))
    draws = draw_many(spec, key, parameters, num)
    assert draws.shape == (num, 5, 2, 3)
    if spec.scale != 1:
        law = {"gaussian": scipy.stats.norm, "laplace": scipy.stats.laplace}[likelihood](parameters, 0.3)
        for end in (-0.5, 0.0, 0.2):
            check_share(draws < np.asarray(parameters) + end, law.cdf(np.asarray(parameters) + end))
    else:
        for value in range(spec.num_categories or 2):
            check_share(draws == value, np.exp(log_prob(np.asarray(parameters), np.full((5, 2, 3), value))))


def draw_many(spec, key, parameters, num):
    return np.asarray(jax.vmap(lambda key: distributions.sample(spec, key, parameters))(jax.random.split(key, num)))


def check_share(seen, probability):
    error = np.abs(seen.mean(0) - probability)
    assert (error < 5 * np.sqrt(probability * (1 - probability) / len(seen)) + 1e-3 / len(seen)).all(), error
