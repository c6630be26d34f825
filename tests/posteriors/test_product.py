import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest

from jnf_jax import subsets, types
from jnf_jax.data import linear_gaussian
from jnf_jax.flows import identity
from jnf_jax.posteriors import hmc, product

CONFIG = linear_gaussian.Config(latent_dim=3, dims=(2, 3, 2, 4, 3), scale=1.5, num_test=3)
MAPS = linear_gaussian.maps(CONFIG)
NAMES = tuple(MAPS)
TEST = linear_gaussian.build(CONFIG, "test").arrays
CHAINS = hmc.Config(num_chains=4, thinning=1, num_warmup=200)
NUM_SAMPLES = 8_000


def draws_of(subset, **options):
    observed = {name: TEST[name] for name in subset}
    exact = oracle.exact_experts(MAPS, observed)
    z, info = oracle.sample_product(
        exact, jax.random.key(len(subset)), num_samples=NUM_SAMPLES, config=options.pop("config", CHAINS), **options
    )
    return z, info, linear_gaussian.posterior(MAPS, observed)


@pytest.mark.parametrize("size", [2, 3, 4, 5])
def test_draws_have_the_exact_moments_for_every_subset(size):
    for subset in subsets.of_size(NAMES, size):
        z, info, (mean, covariance) = draws_of(subset)
        assert info.rhat.max() < 1.01
        assert not info.improper.any()
        oracle.check_moments(z, 4, mean, covariance)


@pytest.mark.parametrize("wrong", [lambda num: 1, lambda num: num - 2, lambda num: num], ids=["once", "too few", "too many"])
def test_a_wrong_prior_power_fails_the_moments(monkeypatch, wrong):
    monkeypatch.setattr(product, "power", wrong)
    z, _, (mean, covariance) = draws_of(NAMES[:4])
    with pytest.raises(AssertionError, match="standard errors off"):
        oracle.check_moments(z, 4, mean, covariance)


def test_unadapted_chains_from_uninverted_base_draws_fail_the_moments():
    z, _, (mean, covariance) = draws_of(NAMES[:2], config=hmc.REFERENCE)
    with pytest.raises(AssertionError):
        oracle.check_moments(z, 4, mean, covariance)


def test_density_of_one_expert_is_normalised():
    mean, covariance = linear_gaussian.posterior(MAPS, {"x0": TEST["x0"]})
    exact = oracle.exact_experts(MAPS, {"x0": TEST["x0"]})
    one = jax.tree.map(lambda leaf: leaf[0], exact.base)
    z = jnp.asarray([0.3, -0.2, 1.0])
    value = product.log_density(oracle.linear_flow(), product.Experts(exact.flow_params, one), z)
    expected = jax.scipy.stats.multivariate_normal.logpdf(z, mean[0], covariance)
    np.testing.assert_allclose(value, expected, rtol=1e-10)


def test_density_follows_bayes_up_to_one_constant():
    observed = {name: TEST[name] for name in NAMES[:4]}
    mean, covariance = linear_gaussian.posterior(MAPS, observed)
    exact = oracle.exact_experts(MAPS, observed)
    one = jax.tree.map(lambda leaf: leaf[0], exact.base)
    z = jax.random.normal(jax.random.key(0), (20, 3))
    value = jax.vmap(lambda z: product.log_density(oracle.linear_flow(), product.Experts(exact.flow_params, one), z))(z)
    expected = jax.vmap(lambda z: jax.scipy.stats.multivariate_normal.logpdf(z, mean[0], covariance))(z)
    difference = np.asarray(value - expected)
    np.testing.assert_allclose(difference, difference[0], atol=1e-8)


def gaussian_product(scales, rotation=None):
    """Experts N(0, Q diag(s_j^2) Q^T), their product's chains."""
    dim = len(scales[0])
    rotation = np.eye(dim) if rotation is None else rotation
    flows = jnp.asarray(np.stack([np.diag(1 / np.asarray(s)) @ rotation.T for s in scales]))
    base = types.Gaussian(jnp.zeros((2, len(scales), dim)), jnp.ones((2, len(scales), dim)))
    return oracle.sample_product(oracle.Exact(flows, base), jax.random.key(0), num_samples=400, config=hmc.Config())


ROTATION = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]


@pytest.mark.parametrize("rotation", [None, ROTATION], ids=["along axes", "rotated"])
@pytest.mark.parametrize(
    "scales",
    [[(0.5, 0.5, 1.5)] * 2, [(0.3, 0.9, 1.3)] * 3, [(0.5, 0.5, 2.0), (0.5, 0.5, 1.2)]],
    ids=["two wide", "three wide", "one very wide"],
)
def test_improper_products_are_flagged(scales, rotation):
    precision = sum(1 / np.square(s) for s in scales) - (len(scales) - 1)
    assert precision.min() < 0
    _, info = gaussian_product(scales, rotation)
    assert info.improper.all()


@pytest.mark.parametrize("rotation", [None, ROTATION], ids=["along axes", "rotated"])
@pytest.mark.parametrize(
    "scales", [[(0.5, 0.5, 1.5), (0.5, 0.5, 1.2)], [(0.5, 0.5, 3.0), (0.5, 0.5, 0.9)], [(0.9, 0.9, 0.9)] * 3]
)
def test_proper_products_are_not_flagged_also_with_one_wide_expert(scales, rotation):
    precision = sum(1 / np.square(s) for s in scales) - (len(scales) - 1)
    assert precision.min() > 0
    _, info = gaussian_product(scales, rotation)
    assert not info.improper.any()


@pytest.mark.parametrize(("widest", "improper"), [(-0.02, True), (0.02, False)])
def test_growth_is_seen_in_many_dimensions_off_the_axes(widest, improper):
    dim = 80
    rng = np.random.default_rng(0)
    rotation = np.linalg.qr(rng.normal(size=(dim, dim)))[0]
    precision = jnp.asarray(rotation @ np.diag([widest, *rng.uniform(0.5, 5, dim - 1)]) @ rotation.T)
    ends = jnp.asarray(rng.normal(size=(4, dim)))
    look = jax.jit(lambda ends: product.grows_outward(lambda z: -0.5 * z @ precision @ z, 0.5 * ends, ends))
    assert bool(look(ends)) == improper


def test_a_narrow_product_far_from_the_origin_is_not_flagged():
    """Half of a latent space is narrow and away from 0, half is almost the prior, as where a VAE does not use all of it."""
    precision = jnp.concatenate([jnp.full(8, 2 / 0.02**2 - 1), jnp.full(8, 2 / 0.999**2 - 1)])
    look = jax.jit(lambda mean, *ends: product.grows_outward(lambda z: -0.5 * ((z - mean) ** 2) @ precision, *ends))
    for seed in range(20):
        rng = np.random.default_rng(seed)
        mean = jnp.asarray(np.concatenate([rng.normal(size=8), np.zeros(8)]))
        starts, ends = (mean + jnp.asarray(rng.normal(size=(4, 16))) / jnp.sqrt(precision) for _ in range(2))
        assert not look(mean, starts, ends)


def test_power_refuses_no_expert():
    with pytest.raises(ValueError, match="at least one expert"):
        product.power(0)


def test_identity_flow_product_is_the_gaussian_product():
    flow = identity.build(identity.Config(), 2)
    base = types.Gaussian(jnp.asarray([[[1.0, 0.0], [0.0, 1.0]]]), jnp.asarray([[[0.5, 1.0], [1.0, 0.5]]]))
    sample = jax.jit(lambda key: product.sample(flow, {}, key, base, num_samples=8_000, config=CHAINS))
    z, _ = sample(jax.random.key(0))
    precision = (1 / base.scale[0] ** 2).sum(0) - 1
    mean = (base.loc[0] / base.scale[0] ** 2).sum(0) / precision
    oracle.check_moments(z, 4, mean[None], jnp.diag(1 / precision))


def test_the_wall_is_nothing_in_the_ball_of_the_priors_mass_and_keeps_chains_near_it():
    norms = np.linalg.norm(np.random.default_rng(0).normal(size=(100_000, 3)), axis=1)
    radius = np.quantile(norms, 0.99)  # holds all but 1%
    inside, beyond = jnp.asarray([0.97 * radius, 0.0, 0.0]), jnp.asarray([1.2 * radius, 0.0, 0.0])
    assert product.wall(inside, 0.01) == 0 < product.wall(beyond, 0.01)
    assert product.wall(beyond, None) == 0
    np.testing.assert_array_equal(jax.grad(product.wall)(jnp.zeros(3), 0.01), 0)  # finite in the middle too
    z, info = gaussian_product([(0.5, 0.5, 3.0)] * 2)  # improper: nothing but the wall holds its chains
    assert info.improper.all()
    assert jnp.linalg.norm(z, axis=-1).max() < 6  # the ball of all but 0.1% has radius 4.03
