"""MMVAE, MMVAE+ and CMVAE: their bounds by importance weights, and the gradients of these."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from linear_models import CONFIGS, built, decoder, encoded, exact_log_likelihood, log_weights
from linear_views import LINEAR, MASKS, MODALITIES, NAMES, NUM, SCALE, check_mean, data, given, many

from jnf_jax import configs, types
from jnf_jax.models import cmvae, mmvae, mmvae_plus


def test_clusters_add_up_to_the_prior():
    """The bound's expectation over q(c | u) is tight: it is log p(u)."""
    model, params = built("cmvae")
    config, prior = CONFIGS["cmvae"], params["prior"]
    u = np.random.default_rng(0).normal(size=(5, 2))
    joint = log_weights(prior["logits"]) + scipy.stats.norm(prior["loc"]).logpdf(u[:, None]).sum(-1)
    posterior = np.asarray(cmvae.cluster_log_probs(config, params, u))
    np.testing.assert_allclose(np.exp(posterior).sum(1), 1, rtol=1e-10)
    w = np.random.default_rng(1).normal(size=(3, 5, 1))
    density = model.prior_log_density(params, {"shared": u, "private": dict(zip(NAMES, w, strict=True))})
    expected = (np.exp(posterior) * (joint - posterior)).sum(1) + scipy.stats.norm.logpdf(w).sum((0, 2))
    np.testing.assert_allclose(density, expected, rtol=1e-10)
    draws = model.sample_prior(params, jax.random.key(0), num_samples=4_000)
    check_mean(np.asarray(draws["shared"]), np.exp(log_weights(prior["logits"])) @ prior["loc"])


@pytest.mark.parametrize("name", ["mmvae", "mmvae_plus", "cmvae"])
def test_stratified_bounds_rise_with_the_number_of_draws_and_stay_below_the_likelihood(name):
    exact, bounds = exact_log_likelihood(name, NAMES).mean(), []
    for num in (1, 8):
        config = {f: getattr(CONFIGS[name], f) for f in CONFIGS[name].__dataclass_fields__} | {"num_importance": num}
        model = configs.build(type(CONFIGS[name])(**config), MODALITIES)
        params = built(name)[1]
        values = -many(lambda key, m=model: m.stages[0].loss(params, key, data())[0], 2_000)
        bounds.append((values.mean(), 5 * values.std(ddof=1) / np.sqrt(len(values))))
    (of_one, of_one_error), (of_eight, of_eight_error) = bounds
    assert of_one + of_one_error + of_eight_error < of_eight  # they rise by far more than the draws' errors
    assert of_eight < exact + of_eight_error


def test_mmvae_of_one_draw_is_its_elbo_also_of_incomplete_examples():
    config = mmvae.Config(**LINEAR, num_importance=1, family="gaussian")
    model, params = configs.build(config, MODALITIES), built("mmvae")[1]
    for masks in ({n: np.ones(NUM, bool) for n in NAMES}, MASKS):
        of_loss = -many(lambda key, m=masks: model.stages[0].loss(params, key, {**data(), types.MASKS: m})[0], 4_000)
        parts = [tuple(n for n in NAMES if masks[n][i]) for i in range(NUM)]
        elbo = lambda key, p=parts: sum(model.elbo(params, key, given(s))[i] for i, s in enumerate(p)) / NUM
        of_elbo = many(elbo, 4_000, seed=1)
        error = 5 * np.sqrt((of_loss.var(ddof=1) + of_elbo.var(ddof=1)) / 4_000)
        assert abs(of_loss.mean() - of_elbo.mean()) < error


@pytest.mark.parametrize("scale", [0.3, 2.0])
def test_other_modalities_are_decoded_from_private_codes_of_the_auxiliary_priors(scale):
    """With w ~ N(0, s^2) and a linear decoder E log p(x | u, w) is lower by s^2 |W_w|^2 / (2 sigma^2); two of three modalities are decoded so."""
    config = mmvae_plus.Config(**LINEAR, private_dim=1, family="gaussian", num_importance=1)
    model, params = configs.build(config, MODALITIES), built("mmvae_plus")[1]
    bounds = []
    for s in (scale, 1.0):
        changed = {**params, "auxiliary": {n: jnp.full(1, np.log(s)) for n in NAMES}}
        bounds.append(-many(lambda key, p=changed: model.stages[0].loss(p, key, data())[0], 20_000))
    square = sum((decoder(params, n)[0][:, LINEAR["latent_dim"] :] ** 2).sum() for n in NAMES)
    expected = -0.5 * (scale**2 - 1) * 2 / 3 * square / SCALE**2
    check_mean(bounds[0] - bounds[1], expected)


def test_private_codes_of_what_is_not_observed_come_from_the_prior():
    model, params = built("mmvae_plus")
    z, info = model.sample_posterior(params, jax.random.key(0), given("b"), num_samples=4_000)
    private = np.asarray(z["private"]["a"])[..., 0]
    check_mean(private, 0.0)
    check_mean(private**2, 1.0)
    loc, scale = encoded("mmvae_plus", "b")
    check_mean(np.asarray(z["private"]["b"]), loc[:, 2:])
    check_mean(np.asarray(z["shared"]), loc[:, :2])
    check_mean((np.asarray(z["shared"]) - loc[:, :2]) ** 2, scale[:, :2] ** 2)
    assert not np.asarray(info.step_size).any()


@pytest.mark.parametrize(("module", "beta"), [(mmvae, 2.0), (mmvae_plus, 1.0), (cmvae, 2.0)])
def test_dreg_has_the_gradient_of_iwae_in_the_mean(module, beta):
    """Also where posteriors overlap and some data are missing; with the true posterior nearby its variance is smaller."""
    num = 6_000
    extra = {mmvae: {}, mmvae_plus: {"private_dim": 1}, cmvae: {"private_dim": 1, "num_clusters": 3}}[module]
    found = {}
    for gradient in ("iwae", "dreg"):
        config = module.Config(**LINEAR, **extra, num_importance=3, family="gaussian", beta=beta, gradient=gradient)
        model, params = configs.build(config, MODALITIES), built(module.__name__.rsplit(".", 1)[-1])[1]
        batch = {**data(), types.MASKS: MASKS}
        gradients = jax.jit(jax.vmap(jax.grad(lambda p, key, m=model: m.stages[0].loss(p, key, batch)[0]), in_axes=(None, 0)))(
            params, jax.random.split(jax.random.key(0), num)
        )
        flat = lambda part: np.concatenate([np.asarray(x).reshape(num, -1) for x in jax.tree.leaves(gradients[part])], axis=1)
        found[gradient] = {part: flat(part) for part in gradients}
    for part in found["iwae"]:
        difference = found["dreg"][part] - found["iwae"][part]  # of the same draws
        error = difference.std(0, ddof=1) / np.sqrt(num) + 1e-12
        assert (np.abs(difference.mean(0)) < 5 * error).all(), part
    if beta == 1:
        assert found["dreg"]["experts"].var(0).sum() < found["iwae"]["experts"].var(0).sum()


def test_dregs_value_is_the_bound():
    values = []
    for gradient in ("iwae", "dreg"):
        model = configs.build(mmvae.Config(**LINEAR, num_importance=3, family="laplace", gradient=gradient), MODALITIES)
        params = built("mmvae")[1]
        values.append(many(lambda key, m=model: m.stages[0].loss(params, key, data())[0], 5))
    np.testing.assert_allclose(*values, rtol=1e-12)
