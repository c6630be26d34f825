import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest

from jnf_jax import subsets, types
from jnf_jax.data import linear_gaussian
from jnf_jax.flows import identity
from jnf_jax.posteriors import divisors, hmc, product, smc

CONFIG = linear_gaussian.Config(latent_dim=3, dims=(2, 3, 2, 4, 3), scale=1.5, num_test=3)
MAPS = linear_gaussian.maps(CONFIG)
ELSEWHERE = oracle.Codes(np.asarray([0.8, -0.5, 0.0]), np.asarray([[0.6, 0.3, 0.0], [0.3, 0.5, 0.1], [0.0, 0.1, 0.9]]))
NAMES = tuple(MAPS)
TEST = linear_gaussian.build(CONFIG, "test").arrays
CHAINS = hmc.Config(num_chains=4, thinning=1, num_warmup=200)
NUM_SAMPLES = 8_000


def draws_of(subset, **options):
    observed = {name: TEST[name] for name in subset}
    exact = oracle.exact_experts(MAPS, observed, options.pop("codes", None))
    z, info = oracle.sample_product(
        exact, jax.random.key(len(subset)), num_samples=NUM_SAMPLES, config=options.pop("config", CHAINS), **options
    )
    return z, info, (exact.mean, exact.covariance)


def test_the_oracle_is_bayes_rule():
    observed = {name: TEST[name] for name in NAMES[:3]}
    exact = oracle.exact_experts(MAPS, observed)
    mean, covariance = linear_gaussian.posterior(MAPS, observed)
    np.testing.assert_allclose(exact.mean, mean, rtol=1e-8)
    np.testing.assert_allclose(exact.covariance, covariance, rtol=1e-8)


@pytest.mark.parametrize(
    ("kind", "codes", "size"),
    [
        *(("prior", None, size) for size in (2, 3, 4, 5)),
        ("pooled", ELSEWHERE, 2),
        ("pooled", ELSEWHERE, 4),
        ("geometric", ELSEWHERE, 3),
    ],
)
def test_draws_have_the_exact_moments_for_every_subset(kind, codes, size):
    for subset in subsets.of_size(NAMES, size)[:: 1 if kind == "prior" else 4]:
        z, info, (mean, covariance) = draws_of(subset, kind=kind, codes=codes)
        assert info.rhat.max() < 1.01
        assert not info.improper.any()
        oracle.check_moments(z, 4, mean, covariance)


@pytest.mark.parametrize("wrong", [lambda num: 1, lambda num: num - 2, lambda num: num], ids=["once", "too few", "too many"])
def test_a_wrong_prior_power_fails_the_moments(monkeypatch, wrong):
    monkeypatch.setattr(product, "power", wrong)
    z, _, (mean, covariance) = draws_of(NAMES[:4])
    with pytest.raises(AssertionError, match="standard errors off"):
        oracle.check_moments(z, 4, mean, covariance)


def wrong_divisors(exact):
    return exact._replace(
        shared=exact.shared._replace(divisors=exact.shared.divisors._replace(loc=exact.shared.divisors.loc + 1))
    )


def divided_by_the_prior(exact):
    dim = exact.base.loc.shape[-1]
    whitening = jax.vmap(lambda r: jnp.linalg.cholesky(jnp.linalg.inv(r @ r.T)))(exact.shared.flows)
    loc = jnp.zeros_like(exact.shared.divisors.loc)
    assert whitening.shape[1:] == (dim, dim)
    return exact._replace(shared=exact.shared._replace(divisors=exact.shared.divisors._replace(loc=loc, whitening=whitening)))


def the_priors_marginal(exact):
    dim = exact.base.loc.shape[-1]
    marginal = {"log_weights": jnp.zeros(1), "loc": jnp.zeros((1, dim)), "whitening": jnp.eye(dim)[None]}
    return exact._replace(shared=exact.shared._replace(marginal=marginal))


FLAT = dataclasses.replace(oracle.MARGINAL, log_density=lambda params, z: jnp.zeros((), z.dtype))


@pytest.mark.parametrize(
    ("mutate", "kind", "marginal"),
    [
        (lambda exact: exact, "prior", oracle.MARGINAL),
        (the_priors_marginal, "marginal", oracle.MARGINAL),
        (lambda exact: exact, "marginal", FLAT),
        (lambda exact: exact, "pooled", FLAT),
        (wrong_divisors, "marginal", oracle.MARGINAL),
        (divided_by_the_prior, "marginal", oracle.MARGINAL),
        (wrong_divisors, "geometric", oracle.MARGINAL),
    ],
    ids=[
        "published",
        "wrong marginal",
        "marginal forgotten",
        "half of it forgotten",
        "shifted divisors",
        "divided by the prior",
        "geometric, shifted",
    ],
)
def test_where_codes_do_not_follow_the_prior_a_wrong_product_fails_the_moments(mutate, kind, marginal):
    exact = mutate(oracle.exact_experts(MAPS, {name: TEST[name] for name in NAMES[:3]}, ELSEWHERE))
    z, _ = oracle.sample_product(exact, jax.random.key(0), num_samples=NUM_SAMPLES, config=CHAINS, kind=kind, marginal=marginal)
    with pytest.raises(AssertionError, match="standard errors off"):
        oracle.check_moments(z, 4, exact.mean, exact.covariance)


@pytest.mark.parametrize("kind", ["marginal", "geometric", "pooled"])
def test_the_density_of_every_rule_follows_bayes_up_to_one_constant(kind):
    exact = oracle.exact_experts(MAPS, {name: TEST[name] for name in NAMES[:4]}, ELSEWHERE)
    z = jax.random.normal(jax.random.key(0), (20, 1, 3))
    value = product.log_densities(oracle.rule(kind), exact.shared, exact.base, z)
    one = lambda z, mean: jax.scipy.stats.multivariate_normal.logpdf(z, mean, exact.covariance)
    expected = jax.vmap(lambda z: jax.vmap(lambda mean: one(z, mean))(jnp.asarray(exact.mean)))(z[:, 0])
    difference = np.asarray(value - expected)
    np.testing.assert_allclose(difference, np.broadcast_to(difference[0], difference.shape), atol=1e-8)


@pytest.mark.parametrize(("kind", "size"), [("prior", 3), ("pooled", 2), ("pooled", 5)])
def test_the_normaliser_is_exact_within_its_standard_error(kind, size):
    exact = oracle.exact_experts(
        MAPS, {name: TEST[name] for name in NAMES[:size]}, oracle.standard(3) if kind == "prior" else ELSEWHERE
    )
    rule, config = oracle.rule(kind), smc.Config(num_particles=64, num_temperatures=12)
    estimate = jax.jit(lambda key: product.log_normaliser(rule, exact.shared, key, exact.base, outside=None, config=config))
    ratios = jnp.exp(jax.vmap(estimate)(jax.random.split(jax.random.key(0), 60)) - normaliser(rule, exact))  # [60, B]
    error = jnp.abs(ratios.mean(0) - 1) / (ratios.std(0, ddof=1) / jnp.sqrt(len(ratios)))
    assert ratios.std(0).max() < 0.5  # an estimator that tells something
    assert error.max() < 5


def test_observations_in_batches_are_what_they_are_at_once_and_one_program():
    exact = oracle.exact_experts(MAPS, {name: TEST[name] for name in NAMES[:2]}, ELSEWHERE)
    config = smc.Config(num_particles=8, num_temperatures=3)

    def estimate(size):
        return jax.jit(lambda base: product.log_normaliser(
            oracle.rule("pooled"), exact.shared, jax.random.key(0), base, outside=None, config=config, batch_size=size
        ))  # fmt: skip

    num = len(exact.base.loc)
    length = lambda size: len(estimate(size).lower(exact.base).as_text().splitlines())
    size = num - 1
    np.testing.assert_allclose(estimate(size)(exact.base), estimate(num)(exact.base), rtol=1e-8)
    assert length(size) < 1.1 * length(num)


@pytest.mark.parametrize("num", [3, 4, 7])
def test_every_particle_starts_at_each_expert_equally_often(num):
    particles, repeats = 10, 600
    pilots = jnp.arange(num * 2 * -(-particles // num)).reshape(num, -1, 1)  # draws of expert j are told by their numbers
    starts = jax.vmap(lambda key: product.starts_of_passes(key, pilots, num_particles=particles))(
        jax.random.split(jax.random.key(0), repeats)
    )[..., 0]
    assert all(len(set(row)) == 2 * particles for row in np.asarray(starts).tolist())  # none is taken twice
    share = np.stack([(starts // pilots.shape[1] == expert).mean(0) for expert in range(num)])  # [num, 2 N]
    tolerance = 5 * np.sqrt(1 / num * (1 - 1 / num) / repeats)
    assert np.abs(share - 1 / num).max() < tolerance
    many = product.starts_of_passes(jax.random.key(0), jnp.arange(2 * num * 2).reshape(num, -1, 1), num_particles=2 * num)
    turns = np.tile(np.arange(num), 4)
    np.testing.assert_array_equal(many[:, 0] // 4, turns)  # as many of each: in turn


def normaliser(rule, exact):
    """log of what the unnormalised density integrates to: it is that constant times a Gaussian known in full."""
    mean = jnp.asarray(exact.mean)
    unnormalised = jnp.diagonal(product.log_densities(rule, exact.shared, exact.base, mean[:, None]))
    return unnormalised - jax.vmap(lambda m: jax.scipy.stats.multivariate_normal.logpdf(m, m, exact.covariance))(mean)


def test_a_divisor_has_the_density_and_the_derivatives_of_its_gaussian():
    rng = np.random.default_rng(0)
    divisor = divisors.by_moments(rng.normal(size=(400, 4)) @ rng.normal(size=(4, 4)), np.full(4, 0.5))
    divisor, u = jax.tree.map(jnp.asarray, (divisor, rng.normal(size=4)))

    def ours(divisor, u):
        return product.divisor_log_prob(divisor._replace(whitening=jnp.tril(divisor.whitening)), u)

    def formula(divisor, u):
        whitening = jnp.tril(divisor.whitening)
        return jax.scipy.stats.multivariate_normal.logpdf(u, divisor.loc, jnp.linalg.inv(whitening @ whitening.T))

    for derivative in (jax.value_and_grad, jax.jacfwd, jax.hessian):
        for argnums in ((1,), (0, 1)):
            found, expected = (derivative(f, argnums=argnums)(divisor, u) for f in (ours, formula))
            jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6, atol=1e-8), found, expected)


def test_no_expert_is_wider_than_its_divisor():
    """u of covariance below sigma^2 in some direction: the ratio would be unbounded there."""
    rng = np.random.default_rng(0)
    widest = np.asarray([0.9, 0.5, 0.7])
    u = rng.normal(size=(500, 3)) @ np.diag([0.3, 2.0, 0.6]) @ oracle.ROTATION.T
    divisor = divisors.by_moments(u, widest)
    covariance = np.linalg.inv(divisor.whitening @ divisor.whitening.T)
    assert np.linalg.eigvalsh(covariance - np.diag(widest**2)).min() > -1e-10
    np.testing.assert_allclose(divisor.loc, u.mean(0), rtol=1e-8)
    wide = divisors.by_moments(10 * u, widest)  # wider than that already: the moments themselves
    np.testing.assert_allclose(np.linalg.inv(wide.whitening @ wide.whitening.T), np.cov(10 * u, rowvar=False), rtol=1e-8)


@pytest.mark.parametrize("kind", ["pooled", "geometric"])
def test_a_product_that_divides_by_its_own_marginals_is_bounded_by_them_however_wide_an_expert_is(kind):
    """By the published rule these two experts make an improper product; here their scales end at the divisors'."""
    dim = 2
    unit = product.Divisors(jnp.zeros((2, dim)), jnp.tile(jnp.eye(dim), (2, 1, 1)), jnp.ones((2, dim)))
    marginal = {"log_weights": jnp.zeros(1), "loc": jnp.zeros((1, dim)), "whitening": jnp.eye(dim)[None]}
    shared = product.Shared(jnp.tile(jnp.eye(dim), (2, 1, 1)), unit, marginal)
    base = types.Gaussian(jnp.zeros((1, 2, dim)), jnp.full((1, 2, dim), 3.0))
    sample = lambda kind: product.sample(
        oracle.rule(kind), shared, jax.random.key(0), base, num_samples=4_000, config=dataclasses.replace(CHAINS, outside=None)
    )
    assert sample("prior")[1].improper.all()
    z, info = sample(kind)
    assert not info.improper.any()
    oracle.check_moments(z, 4, np.zeros((1, dim)), np.eye(dim))  # nothing was observed: the codes' own density


def test_unadapted_chains_from_uninverted_base_draws_fail_the_moments():
    z, _, (mean, covariance) = draws_of(NAMES[:2], config=hmc.REFERENCE)
    with pytest.raises(AssertionError, match="standard errors off"):
        oracle.check_moments(z, 4, mean, covariance, least_ess=0)


def test_density_of_one_expert_is_normalised():
    mean, covariance = linear_gaussian.posterior(MAPS, {"x0": TEST["x0"]})
    exact = oracle.exact_experts(MAPS, {"x0": TEST["x0"]})
    one = jax.tree.map(lambda leaf: leaf[0], exact.base)
    z = jnp.asarray([0.3, -0.2, 1.0])
    value = product.log_density(oracle.rule("prior"), exact.shared, one, z)
    expected = jax.scipy.stats.multivariate_normal.logpdf(z, mean[0], covariance)
    np.testing.assert_allclose(value, expected, rtol=1e-10)


def test_density_follows_bayes_up_to_one_constant():
    observed = {name: TEST[name] for name in NAMES[:4]}
    mean, covariance = linear_gaussian.posterior(MAPS, observed)
    exact = oracle.exact_experts(MAPS, observed)
    one = jax.tree.map(lambda leaf: leaf[0], exact.base)
    z = jax.random.normal(jax.random.key(0), (20, 3))
    value = jax.vmap(lambda z: product.log_density(oracle.rule("prior"), exact.shared, one, z))(z)
    expected = jax.vmap(lambda z: jax.scipy.stats.multivariate_normal.logpdf(z, mean[0], covariance))(z)
    difference = np.asarray(value - expected)
    np.testing.assert_allclose(difference, difference[0], atol=1e-8)


def test_power_refuses_no_expert():
    with pytest.raises(ValueError, match="at least one expert"):
        product.power(0)


def test_identity_flow_product_is_the_gaussian_product():
    flow = identity.build(identity.Config(), 2)
    base = types.Gaussian(jnp.asarray([[[1.0, 0.0], [0.0, 1.0]]]), jnp.asarray([[[0.5, 1.0], [1.0, 0.5]]]))
    rule = product.Rule(kind="prior", flow=flow)
    sample = jax.jit(lambda key: product.sample(rule, product.Shared({}), key, base, num_samples=8_000, config=CHAINS))
    z, _ = sample(jax.random.key(0))
    precision = (1 / base.scale[0] ** 2).sum(0) - 1
    mean = (base.loc[0] / base.scale[0] ** 2).sum(0) / precision
    oracle.check_moments(z, 4, mean[None], jnp.diag(1 / precision))


@pytest.mark.parametrize("kind", ["prior", "pooled", "marginal", "geometric"])
def test_many_experts_at_once_are_what_they_are_one_by_one(monkeypatch, kind):
    exact = oracle.exact_experts(MAPS, TEST, ELSEWHERE)
    z = jax.random.normal(jax.random.key(0), (3,))
    base = jax.tree.map(lambda leaf: leaf[0], exact.base)
    assert len(base.loc) > product._MOST_UNROLLED
    value_and_gradient = lambda: jax.value_and_grad(lambda z: product.log_density(oracle.rule(kind), exact.shared, base, z))(z)
    together = value_and_gradient()
    monkeypatch.setattr(product, "_MOST_UNROLLED", 99)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10), together, value_and_gradient())


def test_a_product_of_eight_is_no_longer_a_program_than_one_of_four():
    """What XLA has to compile, without its clock."""
    marginal = oracle.exact_experts(MAPS, {NAMES[0]: TEST[NAMES[0]]}, ELSEWHERE).shared.marginal

    def program(num):
        shared = product.Shared(
            jnp.tile(jnp.eye(3), (num, 1, 1)),
            product.Divisors(jnp.zeros((num, 3)), jnp.tile(jnp.eye(3), (num, 1, 1)), jnp.ones((num, 3))),
            marginal,
        )
        base = types.Gaussian(jnp.zeros((num, 3)), jnp.ones((num, 3)))
        density = jax.grad(lambda z: product.log_density(oracle.rule("pooled"), shared, base, z))
        return len(jax.jit(density).lower(jnp.zeros(3)).as_text().splitlines())

    assert program(2) < program(4)
    assert program(16) < program(4)


def test_many_gaussian_experts_without_a_flow_multiply():
    num = product._MOST_UNROLLED + 1
    keys = jax.random.split(jax.random.key(0), 3)
    base = types.Gaussian(jax.random.normal(keys[0], (num, 2)), jnp.exp(jax.random.normal(keys[1], (num, 2))))
    z = jax.random.normal(keys[2], (2,))
    found = product.log_density(
        product.Rule(kind="prior", flow=identity.build(identity.Config(), 2)), product.Shared({}), base, z
    )
    experts = jax.scipy.stats.norm.logpdf(z, base.loc, base.scale).sum()
    np.testing.assert_allclose(found, experts - (num - 1) * jax.scipy.stats.norm.logpdf(z).sum(), rtol=1e-10)
