"""The models with closed-form posteriors against exact calculations: linear decoders, Gaussian noise."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from linear_models import (
    CONFIGS,
    built,
    encoded,
    exact_elbo,
    exact_log_likelihood,
    expected_log_likelihood,
    joint_posterior,
    kl,
    losses,
    product,
)
from linear_views import LINEAR, MASKS, MODALITIES, NAMES, NUM, check_mean, data, given, many

from jnf_jax import configs, specs, subsets, types
from jnf_jax.models import cmvae, cvae, dmvae, jmvae, mmvae, mmvae_plus, mopoe, mvae, mvtcae, nexus

WITH_JOINT = ("jmvae", "telbo", "cvae")  # another encoder where everything is observed


@pytest.mark.parametrize("name", CONFIGS)
def test_importance_weights_are_unbiased_for_the_likelihood_of_every_subset(name):
    model, params = built(name)
    for subset in (("b",), ("a", "c"), NAMES)[0 if name in WITH_JOINT else 1 :]:
        estimate = lambda key, s=subset: model.log_likelihood(params, key, given(s), num_importance=50)
        check_mean(np.exp(many(estimate, 200) - exact_log_likelihood(name, subset)), 1)


@pytest.mark.parametrize("name", CONFIGS)
def test_bounds_are_in_order(name):
    """ELBO <= IWAE <= log p(X)."""
    model, params = built(name)
    elbo, iwae = (
        many(estimate, 1_000)
        for estimate in (
            lambda key: model.elbo(params, key, data()),
            lambda key: model.log_likelihood(params, key, data(), num_importance=5),
        )
    )
    error = lambda values: 5 * values.std(0, ddof=1) / np.sqrt(len(values))
    assert (elbo.mean(0) < iwae.mean(0) + error(elbo) + error(iwae)).all()
    assert elbo.mean() < iwae.mean()
    assert (iwae.mean(0) < exact_log_likelihood(name, NAMES) + error(iwae)).all()


@pytest.mark.parametrize("name", ["jmvae", "telbo", "mvae", "mvtcae", "crmvae"])
def test_the_elbo_is_unbiased_for_the_one_in_closed_form(name):
    """At beta 1 and without rescaling, whatever the settings of training are."""
    model, params = built(name)
    if name in ("jmvae", "telbo"):
        posterior = joint_posterior(name)
        expected = sum(expected_log_likelihood(name, n, posterior) for n in NAMES) - kl(posterior)
    else:
        expected = exact_elbo(name, NAMES, 1 if name == "mvae" else 0, 1.0)
    check_mean(many(lambda key: model.elbo(params, key, data()), 100_000), expected)


def test_mopoe_draws_from_the_product_of_what_is_observed_by_default():
    model = configs.build(mopoe.Config(**LINEAR), MODALITIES)
    params = built("mopoe")[1]
    for subset in (("a", "c"), NAMES):
        mean, scale = product([encoded("mopoe", n) for n in subset], 0)
        z = np.random.default_rng(0).normal(size=(7, NUM, 2))
        expected = scipy.stats.norm(mean, scale).logpdf(z).sum(-1)
        np.testing.assert_allclose(model.posterior_log_density(params, given(subset), z), expected, rtol=1e-8)
        draws, _ = model.sample_posterior(params, jax.random.key(0), given(subset), num_samples=100_000)
        check_mean((np.asarray(draws) - mean) / scale, 0)
        check_mean(((np.asarray(draws) - mean) / scale) ** 2, 1)


def exact_objective(name, subset):
    """The paper's objective `[N]` of examples that have these modalities alone, to be maximised."""
    config = CONFIGS[name]
    within = [*subsets.proper(subset), subset] if len(subset) > 1 else [subset]
    match name:
        case "mvae":
            parts = [subset, *((n,) for n in subset)]
            table = [tuple(n for n in s if n in subset) for s in subsets.of_size(NAMES, 2)]
            random = sum(exact_elbo(name, s, 1, config.beta) for s in table if s) / len(table)
            return sum(exact_elbo(name, s, 1, config.beta) for s in parts) + config.num_subsets * random
        case "mopoe":
            return sum(exact_elbo(name, s, 0, config.beta, subset) for s in within) / len(within)
        case "mvtcae":
            posterior, alpha, num = product([encoded(name, n) for n in subset], 0), config.alpha, len(NAMES)
            likelihood = sum(expected_log_likelihood(name, n, posterior) for n in subset)
            cvib = sum(kl(posterior, encoded(name, n)) for n in subset)
            return (num - alpha) / num * likelihood - config.beta * ((1 - alpha) * kl(posterior) + alpha / num * cvib)
        case "crmvae":
            posterior, experts = product([encoded(name, n) for n in subset], 0), {n: encoded(name, n) for n in subset}
            likelihood = sum(expected_log_likelihood(name, n, q) for n in subset for q in (posterior, experts[n])) / 2
            divergence = kl(posterior) + sum(kl(posterior, expert) for expert in experts.values())
            return (likelihood - config.beta * divergence) / (len(NAMES) + 1)
        case "dmvae":
            cut = lambda n, part: tuple(leaf[:, part] for leaf in encoded(name, n))
            shared, private = ({n: cut(n, part) for n in subset} for part in (slice(2), slice(2, None)))
            code = lambda q, n: tuple(np.concatenate(leaves, axis=1) for leaves in zip(q, private[n], strict=True))
            elbo = lambda q: sum(expected_log_likelihood(name, n, code(q, n)) for n in subset) - config.beta * kl(q)
            divergence = config.private_beta * sum(map(kl, private.values()))
            return sum(elbo(q) - divergence for q in (product(list(shared.values()), 1), *shared.values()))


@pytest.mark.parametrize("name", ["mvae", "mopoe", "mvtcae", "dmvae", "crmvae"])
def test_the_loss_is_unbiased_for_the_objective_in_closed_form(name):
    check_mean(-losses(name, data()), exact_objective(name, NAMES).mean())


@pytest.mark.parametrize("name", ["mvae", "mopoe", "mvtcae", "dmvae", "crmvae"])
def test_another_weight_of_the_kl_term_is_told_apart(name, monkeypatch):
    built(name)
    monkeypatch.setitem(CONFIGS, name, dataclasses.replace(CONFIGS[name], beta=1.0))
    with pytest.raises(AssertionError):
        test_the_loss_is_unbiased_for_the_objective_in_closed_form(name)


@pytest.mark.parametrize("name", ["mvae", "mopoe", "mvtcae", "dmvae", "crmvae"])
def test_the_loss_of_incomplete_examples_is_that_of_what_they_have(name):
    exact = [exact_objective(name, tuple(n for n in NAMES if MASKS[n][i]))[i] for i in range(NUM)]
    check_mean(-losses(name, {**data(), types.MASKS: MASKS}), np.mean(exact))


@pytest.mark.parametrize("name", ["mvae", "mopoe", "mvtcae", "mmvae", "mmvae_plus", "dmvae", "crmvae", "cmvae"])
def test_missing_data_stand_for_nothing_and_masks_that_miss_nothing_change_nothing(name):
    model, params = built(name)
    loss = jax.jit(jax.value_and_grad(lambda p, batch: model.stages[0].loss(p, jax.random.key(0), batch)[0]))
    other = {n: np.where(MASKS[n][:, None], x, 17.0) for n, x in data().items()}
    everything = {n: np.ones(NUM, bool) for n in NAMES}
    same = functools.partial(jax.tree.map, lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12))
    same(loss(params, {**data(), types.MASKS: MASKS}), loss(params, {**other, types.MASKS: MASKS}))
    plain, _ = jax.jit(model.stages[0].loss)(params, jax.random.key(0), data())
    same(loss(params, {**data(), types.MASKS: everything})[0], plain)
    assert abs(loss(params, {**data(), types.MASKS: MASKS})[0] - plain) > 0.01


def test_dmvae_of_one_modality_is_its_expert_and_of_more_a_product_with_the_prior():
    model, params = built("dmvae")
    z = jax.tree.map(np.asarray, model.sample_prior(params, jax.random.key(0), num_samples=NUM))
    for subset, power in (("b", 0), ("ab", 1)):
        loc, scale = product([tuple(leaf[:, :2] for leaf in encoded("dmvae", n)) for n in subset], power)
        expected = scipy.stats.norm(loc, scale).logpdf(z["shared"]).sum(-1)
        for n in NAMES:
            loc, scale = (leaf[:, 2:] for leaf in encoded("dmvae", n)) if n in subset else (0.0, 1.0)
            expected += scipy.stats.norm(loc, scale).logpdf(z["private"][n]).sum(-1)
        np.testing.assert_allclose(model.posterior_log_density(params, given(subset), z), expected, rtol=1e-8)


def test_mopoe_of_single_modalities_is_the_bound_of_a_mixture_of_experts_and_of_all_that_of_a_product():
    config = CONFIGS["mopoe"]
    networks = mopoe.modalities.build(MODALITIES, config.network, {}, {})
    head = mopoe.networks_base.GaussianHead(dim=2)
    parts = mopoe.Parts(config=config, encoders=mopoe.unimodal.Encoders(modalities=networks, head=head))
    _, params = built("mopoe")
    for chosen, exact in (
        (np.eye(3, dtype=bool), np.mean([exact_elbo("mopoe", (n,), 0, config.beta, NAMES) for n in NAMES])),
        (np.ones((1, 3), bool), exact_elbo("mopoe", NAMES, 0, config.beta).mean()),
    ):
        loss = lambda key, c=chosen: mopoe.loss(parts, params, key, data(), chosen=c)[0]
        check_mean(-many(loss, 3_000), exact)


def test_mopoes_trained_bound_lies_below_the_elbo_of_its_mixture():
    model, params = built("mopoe")
    trained = sum(exact_elbo("mopoe", s, 0, 1.0, NAMES) for s in mopoe_subsets()) / 7
    elbo = many(lambda key: model.elbo(params, key, data()), 2_000)
    assert (trained < elbo.mean(0) + 5 * elbo.std(0, ddof=1) / np.sqrt(len(elbo))).all()


def mopoe_subsets():
    return [*subsets.proper(NAMES), NAMES]


@pytest.mark.parametrize(
    ("config", "options", "message"),
    [
        (jmvae.Config, {"alpha": 0.0}, "positive alpha, got 0.0"),
        (jmvae.Config, {"warmup": 1.5}, r"warmup in \[0, 1\], got 1.5"),
        (mvae.Config, {"num_subsets": -1}, "num_subsets of at least 0, got -1"),
        (mvae.Config, {"beta": 0.0}, "positive beta, got 0.0"),
        (mvtcae.Config, {"alpha": 1.1}, r"alpha in \[0, 1\], got 1.1"),
        (mmvae.Config, {"num_importance": 0}, "num_importance of at least 1, got 0"),
        (mmvae.Config, {"family": "cauchy"}, "mmvae.family, got 'cauchy'"),
        (mmvae_plus.Config, {"private_dim": 0}, "private_dim of at least 1, got 0"),
        (mopoe.Config, {"latent_dim": 0}, "latent dimension of at least 1, got 0"),
        (dmvae.Config, {"private_beta": 0.0}, "positive private_beta, got 0.0"),
        (cvae.Config, {"condition_dim": 0}, "condition_dim of at least 1, got 0"),
        (cmvae.Config, {"num_clusters": 0}, "num_clusters of at least 1, got 0"),
    ],
)
def test_nonsense_is_refused(config, options, message):
    with pytest.raises(ValueError, match=message):
        config(**options)


def test_two_modalities_leave_mvae_no_random_subsets():
    model = configs.build(CONFIGS["mvae"], {n: MODALITIES[n] for n in "ab"})
    params = jax.jit(model.init)(jax.random.key(0))
    loss, _ = model.stages[0].loss(params, jax.random.key(0), given("ab"))
    assert jnp.isfinite(loss)


@pytest.mark.parametrize("name", [*CONFIGS, "nexus"])
def test_rescaling_weighs_the_likelihoods_of_every_model(name):
    """By the largest modality's size over their own; with modalities of one size it changes nothing."""
    config = nexus.Config(**LINEAR) if name == "nexus" else CONFIGS[name]

    def difference(sizes):
        modalities = {n: specs.ModalitySpec(shape=(size,), scale=0.8) for n, size in zip(NAMES, sizes, strict=True)}
        plain, rescaled = (configs.build(dataclasses.replace(config, rescale=on), modalities) for on in (False, True))
        params = jax.jit(plain.init)(jax.random.key(0))
        batch = {n: jnp.ones((4, size)) for n, size in zip(NAMES, sizes, strict=True)}
        (one, metrics), (two, _) = (m.stages[0].loss(params, jax.random.key(1), batch) for m in (plain, rescaled))
        return float(two - one), metrics

    assert difference((4, 4, 4))[0] == pytest.approx(0, abs=1e-9)
    found, metrics = difference((2, 8, 4))
    assert abs(found) > 0.1
    if name in ("jmvae", "mvtcae"):
        likelihoods = [metrics[f"log_likelihood/{n}"] for n in NAMES]
        factor = {"jmvae": 1, "mvtcae": (3 - CONFIGS["mvtcae"].alpha) / 3}[name]
        assert found == pytest.approx(-factor * (3 * likelihoods[0] + 0 * likelihoods[1] + 1 * likelihoods[2]))
