"""Nexus and MHVAE, whose codes have a learnt prior, against exact calculations: linear networks, Gaussian noise."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from linear_views import LINEAR, MASKS, MODALITIES, NAMES, NUM, SCALE, check_mean, data, given, many

from jnf_jax import configs, subsets, types
from jnf_jax.models import mhvae, nexus

CONFIGS = {
    "nexus": nexus.Config(
        **LINEAR, private_dim=2, message_dim=3, top_hidden=(), beta=1.5, top_beta=0.7, gamma=0.6, dropout=0.4, warmup=0.0
    ),
    "mhvae": mhvae.Config(**LINEAR, skip_dim=2, block_hidden=(), num_subsets=None),
}
KINDS = list(CONFIGS)


@functools.cache
def built(name):
    """The model and its parameters in float64; scales of what stands above the data are constants, so that the data are Gaussian."""
    model = configs.build(CONFIGS[name], MODALITIES)
    params = jax.tree.map(lambda leaf: np.array(leaf, np.float64), jax.jit(model.init)(jax.random.key(1)))
    if name == "nexus":
        params["top"]["head"]["params"]["scale"]["kernel"] *= 0
        params["top"]["log_scale"] += np.log(0.7)
    else:
        params["top_down"]["level_1"]["prior"]["params"]["scale"]["kernel"] *= 0
        experts = [blocks["deepest"]["head"] for blocks in params["bottom_up"]["blocks"].values()]
        for head in (params["top_down"]["level_1"]["head"], *experts):  # weak, or importance weights have no variance
            head["params"]["scale"]["bias"] += 1.5
            head["params"]["loc"]["kernel"] *= 0.2
    return model, params


def dense(params):
    return np.asarray(params["kernel"]), np.asarray(params["bias"])


def gaussian_of(head, x):
    loc, raw = (x @ kernel + bias for kernel, bias in (dense(head["params"][part]) for part in ("loc", "scale")))
    return loc, np.logaddexp(0, raw + np.log(np.e - 1)) + 1e-4


def decoder(params, name):
    return dense(params["decoders"][name]["params"]["Dense_0"])


def exact_log_likelihood(name, subset):
    """log p(x_S): the data are linear in independent standard normal variables."""
    _, params = built(name)
    rows, means = [], []
    for modality in subset:
        kernel, bias = decoder(params, modality)
        if name == "nexus":
            j = NAMES.index(modality)
            weight, offset = (leaf[j] for leaf in dense(params["top"]["means"]["params"]["Dense_0"]))
            own = np.zeros((2 * len(NAMES), 2))
            own[2 * j : 2 * j + 2] = np.diag(np.exp(params["top"]["log_scale"][j]))
        else:
            head = params["top_down"]["level_1"]["prior"]["params"]
            weight, offset = dense(head["loc"])
            own = np.diag(np.logaddexp(0, head["scale"]["bias"] + np.log(np.e - 1)) + 1e-4)
        rows.append(np.concatenate([weight, own]) @ kernel)
        means.append(offset @ kernel + bias)
    weight = np.concatenate(rows, axis=1)
    x = np.concatenate([data()[n] for n in subset], axis=1)
    covariance = weight.T @ weight + SCALE**2 * np.eye(x.shape[1])
    return scipy.stats.multivariate_normal(np.concatenate(means), covariance).logpdf(x)


@pytest.mark.parametrize("name", KINDS)
def test_importance_weights_are_unbiased_for_the_likelihood_of_every_subset(name):
    model, params = built(name)
    for subset in (("a", "c"), NAMES):
        estimate = lambda key, s=subset: model.log_likelihood(params, key, given(s), num_importance=50)
        check_mean(np.exp(many(estimate, 400) - exact_log_likelihood(name, subset)), 1)


@pytest.mark.parametrize("name", KINDS)
def test_bounds_are_in_order(name):
    """ELBO <= IWAE <= log p(X)."""
    model, params = built(name)
    elbo = many(lambda key: model.elbo(params, key, data()), 1_000)
    iwae = many(lambda key: model.log_likelihood(params, key, data(), num_importance=5), 1_000)
    error = lambda values: 5 * values.std(0, ddof=1) / np.sqrt(len(values))
    assert (elbo.mean(0) < iwae.mean(0) + error(elbo) + error(iwae)).all()
    assert elbo.mean() < iwae.mean()
    assert (iwae.mean(0) < exact_log_likelihood(name, NAMES) + error(iwae)).all()


@pytest.mark.parametrize("name", KINDS)
def test_prior_draws_have_the_moments_of_the_data_model(name):
    model, params = built(name)
    decoded = model.decode(params, model.sample_prior(params, jax.random.key(0), num_samples=8_000))
    for modality in NAMES:
        mean, covariance = exact_moments(name, modality)
        x = np.asarray(decoded[modality])
        check_mean(x, mean)
        check_mean((x - mean) ** 2, np.diag(covariance))


def exact_moments(name, modality):
    """Mean and covariance of a modality's likelihood parameters, read off the exact likelihood by finite points."""
    _, params = built(name)
    kernel, bias = decoder(params, modality)
    if name == "nexus":
        j = NAMES.index(modality)
        weight, offset = (leaf[j] for leaf in dense(params["top"]["means"]["params"]["Dense_0"]))
        own = np.exp(params["top"]["log_scale"][j])
    else:
        head = params["top_down"]["level_1"]["prior"]
        weight, _ = dense(head["params"]["loc"])
        offset, own = gaussian_of(head, np.zeros(2))
    return offset @ kernel + bias, kernel.T @ (weight.T @ weight + np.diag(own**2)) @ kernel


@pytest.mark.parametrize("name", KINDS)
def test_missing_data_stand_for_nothing_and_masks_that_miss_nothing_change_nothing(name):
    model, params = built(name)
    loss = jax.jit(jax.value_and_grad(lambda p, batch: model.stages[0].loss(p, jax.random.key(0), batch)[0]))
    other = {n: np.where(MASKS[n][:, None], x, 17.0) for n, x in data().items()}
    everything = {n: np.ones(NUM, bool) for n in NAMES}
    same = functools.partial(jax.tree.map, lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12))
    masked = loss(params, {**data(), types.MASKS: MASKS})
    same(masked, loss(params, {**other, types.MASKS: MASKS}))
    plain, _ = jax.jit(model.stages[0].loss)(params, jax.random.key(0), data())
    same(loss(params, {**data(), types.MASKS: everything})[0], plain)
    assert abs(masked[0] - plain) > 0.01


def losses(model, params, batch, num, seed=0):
    params = jax.tree.map(jnp.asarray, params)  # indices that are traced do not index numpy arrays
    return many(lambda key: model.stages[0].loss(params, key, batch)[0], num, seed)


def within(subset):
    return [s for size in range(1, len(subset) + 1) for s in itertools.combinations(subset, size)]


def test_the_loss_of_mhvae_is_the_mean_elbo_over_subsets():
    """Each ELBO is estimated by other functions of the model: log p(X|z) + log p(z) - log q(z|x_S), with a KL term drawn and not in closed form."""
    model, params = built("mhvae")

    def elbo(key, subset, i, targets):
        z, _ = model.sample_posterior(params, key, given(subset), num_samples=1)
        z = jax.tree.map(lambda leaf: leaf[0], z)
        decoded = model.decode(params, z)
        terms = [jax.scipy.stats.norm.logpdf(data()[n], decoded[n], SCALE).sum(-1) for n in targets]
        q = model.posterior_log_density(params, given(subset), jax.tree.map(lambda leaf: leaf[None], z))[0]
        return (sum(terms) + model.prior_log_density(params, z) - q)[i]

    for masks in (dict.fromkeys(NAMES, np.ones(NUM, bool)), MASKS):
        of_loss = -losses(model, params, {**data(), types.MASKS: masks}, 3_000)
        parts = [tuple(n for n in NAMES if masks[n][i]) for i in range(NUM)]
        jobs = [(s, i, parts[i], 1 / len(within(parts[i])) / NUM) for i in range(NUM) for s in within(parts[i])]
        total = lambda key, jobs=jobs: sum(
            share * elbo(jax.random.fold_in(key, n), s, i, targets) for n, (s, i, targets, share) in enumerate(jobs)
        )
        of_elbo = many(total, 3_000, seed=1)
        error = 5 * np.sqrt((of_loss.var(ddof=1) + of_elbo.var(ddof=1)) / 3_000)
        assert abs(of_loss.mean() - of_elbo.mean()) < error


@pytest.mark.parametrize("masks", [None, MASKS], ids=["complete", "incomplete"])
def test_random_subsets_are_unbiased_for_all_of_them(masks):
    batch = data() if masks is None else {**data(), types.MASKS: masks}
    params, means, error = built("mhvae")[1], [], 0.0
    for num in (None, 2):
        model = configs.build(mhvae.Config(**LINEAR, skip_dim=2, block_hidden=(), num_subsets=num), MODALITIES)
        values = losses(model, params, batch, 4_000, seed=num or 0)
        means.append(values.mean())
        error += values.var(ddof=1) / len(values)
    assert abs(means[0] - means[1]) < 5 * np.sqrt(error)


def test_the_deepest_level_holds_the_prior_once_and_the_next_its_own_prior_once():
    model, params = built("mhvae")
    z = jax.tree.map(np.asarray, model.sample_prior(params, jax.random.key(0), num_samples=NUM))
    level, expected = params["top_down"]["level_1"], 0.0
    deepest, shallow = [(0.0, 1.0)], [gaussian_of(level["prior"], z["level_2"])]
    for n in "ac":
        blocks = params["bottom_up"]["blocks"][n]
        kernel, bias = dense(blocks["skips"]["level_1"]["skip"]["params"])
        skip = data()[n] @ kernel + bias
        deepest.append(gaussian_of(blocks["deepest"]["head"], skip))
        shallow.append(gaussian_of(level["head"], np.concatenate([z["level_2"], skip], axis=1)))
    for name, factors in (("level_2", deepest), ("level_1", shallow)):
        precision = sum(s**-2 for _, s in factors)
        loc = sum(m / s**2 for m, s in factors) / precision
        expected += scipy.stats.norm(loc, precision**-0.5).logpdf(z[name]).sum(-1)
    np.testing.assert_allclose(model.posterior_log_density(params, given("ac"), z), expected, rtol=1e-8)


def exact_nexus(subset, kept):
    """- L `[N]` of examples that have these modalities and whose messages are of those kept, in closed form."""
    config, params = CONFIGS["nexus"], built("nexus")[1]
    top = params["top"]
    bottom = {n: gaussian_of(params["bottom"]["heads"][n], data()[n]) for n in subset}
    kl = lambda m, s: 0.5 * (m**2 + s**2 - 1 - 2 * np.log(s)).sum(-1)
    total = 0.0
    for n, (m, s) in bottom.items():
        kernel, bias = decoder(params, n)
        error, spread = data()[n] - m @ kernel - bias, s**2 @ kernel**2
        constant = error.shape[1] * np.log(SCALE * np.sqrt(2 * np.pi))
        total += -0.5 * (error**2 + spread).sum(-1) / SCALE**2 - constant - config.beta * kl(m, s)
    kernel, bias = dense(top["head"]["params"]["loc"])
    weights, offset = {}, bias  # u = sum_n w_n J_n + c + tau e
    for n in kept:
        h, b = (leaf[NAMES.index(n)] for leaf in dense(top["messages"]["params"]["Dense_0"]))
        weights[n], offset = h @ kernel / len(kept), offset + b @ kernel / len(kept)
    loc = sum(bottom[n][0] @ weights[n] for n in kept) + offset
    variance = sum(bottom[n][1] ** 2 @ weights[n] ** 2 for n in kept)
    tau = gaussian_of(top["head"], np.zeros(3))[1]
    total -= config.top_beta * 0.5 * (loc**2 + variance + tau**2 - 1 - 2 * np.log(tau)).sum(-1)
    for n in subset:
        c, d = (leaf[NAMES.index(n)] for leaf in dense(top["means"]["params"]["Dense_0"]))
        scale = np.exp(top["log_scale"][NAMES.index(n)])
        error = bottom[n][0] - loc @ c - d
        parts = {k: -weights[k] @ c + (np.eye(2) if k == n else 0) for k in kept} | ({} if n in kept else {n: np.eye(2)})
        spread = sum(bottom[k][1] ** 2 @ part**2 for k, part in parts.items()) + tau**2 @ c**2
        log_density = -0.5 * (error**2 + spread) / scale**2 - np.log(scale * np.sqrt(2 * np.pi))
        total += config.gamma * log_density.sum(-1)
    return total


def test_the_loss_of_nexus_is_unbiased_for_its_objective_over_all_droppings():
    model, params = built("nexus")
    dropped = [np.mean([exact_nexus(NAMES, s) for s in subsets.of_size(NAMES, size)], axis=0) for size in (1, 2)]
    exact = (1 - CONFIGS["nexus"].dropout) * exact_nexus(NAMES, NAMES) + CONFIGS["nexus"].dropout * np.mean(dropped, axis=0)
    check_mean(-losses(model, params, data(), 100_000), exact.mean())


@pytest.mark.parametrize("weight", ["beta", "top_beta", "gamma"])
def test_another_weight_of_a_term_of_nexus_is_told_apart(weight, monkeypatch):
    built("nexus")
    monkeypatch.setitem(CONFIGS, "nexus", dataclasses.replace(CONFIGS["nexus"], **{weight: 1.0}))
    with pytest.raises(AssertionError):
        test_the_loss_of_nexus_is_unbiased_for_its_objective_over_all_droppings()


def test_the_loss_of_nexus_of_incomplete_examples_is_that_of_what_they_have():
    config = nexus.Config(**{f: getattr(CONFIGS["nexus"], f) for f in CONFIGS["nexus"].__dataclass_fields__} | {"dropout": 0.0})
    model, params = configs.build(config, MODALITIES), built("nexus")[1]
    parts = [tuple(n for n in NAMES if MASKS[n][i]) for i in range(NUM)]
    exact = np.mean([exact_nexus(part, part)[i] for i, part in enumerate(parts)])
    check_mean(-losses(model, params, {**data(), types.MASKS: MASKS}, 100_000), exact)


def test_the_top_of_nexus_does_not_change_its_bottom():
    gradients = []
    for gamma in (0.6, 6.0):
        fields = {f: getattr(CONFIGS["nexus"], f) for f in CONFIGS["nexus"].__dataclass_fields__} | {"gamma": gamma}
        model = configs.build(nexus.Config(**fields), MODALITIES)
        loss = lambda p, m=model: m.stages[0].loss(p, jax.random.key(0), data())[0]
        gradients.append(jax.jit(jax.grad(loss))(built("nexus")[1]))
    for part in ("bottom", "decoders"):
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-10), *(g[part] for g in gradients))
    assert max(np.abs(a - b).max() for a, b in zip(*(jax.tree.leaves(g["top"]) for g in gradients), strict=True)) > 0.1


def test_messages_are_dropped_of_what_is_there_and_never_all():
    present = jnp.asarray(np.stack(list(MASKS.values()))[:, [0, 1, 2] * 400])
    kept = np.asarray(nexus.keep(jax.random.key(0), present, 0.5))
    assert not (kept & ~np.asarray(present)).any()
    assert kept.any(0).all()
    complete = kept[:, np.asarray(present).all(0)]
    check_mean((~complete.all(0)).astype(float), 0.5)


@pytest.mark.parametrize(
    ("config", "options", "message"),
    [
        (nexus.Config, {"dropout": 1.5}, r"dropout in \[0, 1\], got 1.5"),
        (nexus.Config, {"top_scale": 0.0}, "positive top_scale, got 0.0"),
        (nexus.Config, {"message_dim": 0}, "message_dim of at least 1, got 0"),
        (mhvae.Config, {"num_levels": 1}, "num_levels of at least 2, got 1"),
        (mhvae.Config, {"num_subsets": 0}, "num_subsets of at least 1, got 0"),
    ],
)
def test_nonsense_is_refused(config, options, message):
    with pytest.raises(ValueError, match=message):
        config(**options)
