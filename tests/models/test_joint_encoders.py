"""JMVAE, TELBO and CVAE, whose joint encoders see everything, against exact calculations: linear decoders, Gaussian noise."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from linear_models import (
    CONFIGS,
    built,
    decoder,
    encoded,
    expected_log_likelihood,
    gaussian_of,
    joint_posterior,
    kl,
    losses,
    product,
)
from linear_views import LINEAR, MODALITIES, NAMES, NUM, SCALE, check_mean, data, given

from jnf_jax import configs, subsets
from jnf_jax.models import jmvae


def test_the_loss_of_jmvae_is_unbiased_for_its_objective():
    model, params = built("jmvae")
    config, joint = CONFIGS["jmvae"], joint_posterior("jmvae")
    experts = [(m, (1 + s**-2) ** -0.5) for m, s in (encoded("jmvae", n) for n in NAMES)]
    exact = sum(expected_log_likelihood("jmvae", n, joint) for n in NAMES) - config.beta * kl(joint)
    exact -= config.alpha * sum(kl(joint, expert) for expert in experts)
    check_mean(-losses("jmvae", data()), exact.mean())
    # and given a subset: Bayes' rule, with the prior once
    mean, scale = product(experts[:2], -1)
    z = np.random.default_rng(1).normal(size=(4, NUM, 2))
    density = model.posterior_log_density(params, given("ab"), z)
    np.testing.assert_allclose(density, scipy.stats.norm(mean, scale).logpdf(z).sum(-1), rtol=1e-8)


def test_kl_terms_rise_during_the_warm_up():
    model = configs.build(jmvae.Config(**LINEAR, joint_hidden=(), warmup=0.5), MODALITIES)
    params, key = built("jmvae")[1], jax.random.key(0)
    stage = model.stages[0]
    full, metrics = stage.loss(params, key, data())
    assert stage.annealing == 0.5
    terms = metrics["kl"] + 0.1 * metrics["kl_to_experts"]
    for progress, weight in ((0.0, 0.0), (0.25, 0.5), (0.5, 1.0), (0.9, 1.0)):
        loss, _ = stage.annealed(params, key, data(), jnp.asarray(progress))
        np.testing.assert_allclose(full - loss, (1 - weight) * terms, rtol=1e-8, atol=1e-10)


def test_an_improper_product_of_wide_experts_shows_in_the_info():
    model = configs.build(jmvae.Config(**LINEAR, joint_hidden=(), wide_experts=True), MODALITIES)
    params = jax.tree.map(jnp.asarray, built("jmvae")[1])
    for head in params["experts"]["heads"].values():
        head["params"]["scale"]["bias"] = head["params"]["scale"]["bias"] + 5.0
    _, info = model.sample_posterior(params, jax.random.key(0), given("ab"), num_samples=2)
    assert np.asarray(info.improper).all()


def test_the_losses_of_telbos_stages_are_unbiased_for_their_elbos():
    beta, joint = CONFIGS["telbo"].beta, joint_posterior("telbo")
    exact = sum(expected_log_likelihood("telbo", n, joint) for n in NAMES) - beta * kl(joint)
    check_mean(-losses("telbo", data()), exact.mean())
    experts = {n: (m, (1 + s**-2) ** -0.5) for n, (m, s) in ((n, encoded("telbo", n)) for n in NAMES)}
    exact = sum(expected_log_likelihood("telbo", n, expert) - beta * kl(expert) for n, expert in experts.items())
    check_mean(-losses("telbo", data(), stage=1), exact.mean())


def conditional_prior(subset):
    """p(z | x_S) of the CVAE, in numpy; its layers are linear but for one relu."""
    condition = built("cvae")[1]["condition"]
    if not subset:
        return np.zeros((NUM, 2)), np.ones((NUM, 2))
    dense = {n: condition["embeddings"][n]["params"] for n in subset}
    total = sum(np.asarray(data()[n]) @ dense[n]["kernel"] + dense[n]["bias"] for n in subset)
    return gaussian_of(condition["head"], np.maximum(total, 0))


def conditions():
    """The subsets that may be given, with their probabilities."""
    for size in range(len(NAMES)):
        same = subsets.of_size(NAMES, size) if size else [()]
        yield from ((subset, 1 / len(NAMES) / len(same)) for subset in same)


def test_the_loss_of_the_cvae_is_unbiased_for_its_bound_over_all_conditions():
    joint, exact = joint_posterior("cvae"), 0.0
    for subset, probability in conditions():
        likelihood = sum(expected_log_likelihood("cvae", n, joint) for n in NAMES if n not in subset)
        exact += probability * (likelihood - CONFIGS["cvae"].beta * kl(joint, conditional_prior(subset)))
    check_mean(-losses("cvae", data()), exact.mean())


def test_the_cvaes_bound_lies_below_the_conditional_likelihood():
    joint, params = joint_posterior("cvae"), built("cvae")[1]
    for subset, _ in conditions():
        others = [n for n in NAMES if n not in subset]
        prior = conditional_prior(subset)
        bound = sum(expected_log_likelihood("cvae", n, joint) for n in others) - kl(joint, prior)
        weight = np.concatenate([decoder(params, n)[0] for n in others])
        bias = np.concatenate([decoder(params, n)[1] for n in others])
        x = np.concatenate([np.asarray(data()[n]) for n in others], axis=1)
        for i, (loc, scale) in enumerate(zip(*prior, strict=True)):
            covariance = weight @ np.diag(scale**2) @ weight.T + SCALE**2 * np.eye(len(weight))
            assert bound[i] < scipy.stats.multivariate_normal(weight @ loc + bias, covariance).logpdf(x[i])


def test_the_cvae_draws_from_the_conditional_prior():
    model, params = built("cvae")
    z = np.random.default_rng(1).normal(size=(4, NUM, 2))
    for subset in ("b", "ac"):
        density = model.posterior_log_density(params, given(subset), z)
        loc, scale = conditional_prior(tuple(subset))
        np.testing.assert_allclose(density, scipy.stats.norm(loc, scale).logpdf(z).sum(-1), rtol=1e-8)


@pytest.mark.parametrize(
    ("name", "check"),
    [
        ("jmvae", test_the_loss_of_jmvae_is_unbiased_for_its_objective),
        ("telbo", test_the_losses_of_telbos_stages_are_unbiased_for_their_elbos),
        ("cvae", test_the_loss_of_the_cvae_is_unbiased_for_its_bound_over_all_conditions),
    ],
)
def test_another_weight_of_the_kl_term_is_told_apart(name, check, monkeypatch):
    built(name)
    monkeypatch.setitem(CONFIGS, name, dataclasses.replace(CONFIGS[name], beta=1.0))
    with pytest.raises(AssertionError):
        check()
