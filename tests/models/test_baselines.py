"""The models with closed-form posteriors against exact calculations: linear decoders, Gaussian noise."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats
from linear_views import LINEAR, MASKS, MODALITIES, NAMES, NUM, SCALE, check_mean, data, given, many

from jnf_jax import configs, subsets, types
from jnf_jax.models import cmvae, crmvae, cvae, dmvae, jmvae, mmvae, mmvae_plus, mopoe, mvae, mvtcae, telbo

CONFIGS = {
    "jmvae": jmvae.Config(**LINEAR, joint_hidden=(), beta=1.5, alpha=0.3, warmup=0.0),
    "mvae": mvae.Config(**LINEAR, beta=1.5, num_subsets=2),
    "mvtcae": mvtcae.Config(**LINEAR, alpha=0.4, beta=1.5),
    "mopoe": mopoe.Config(**LINEAR, beta=1.5, sample_from="mixture"),
    "mmvae": mmvae.Config(**LINEAR, num_importance=3, family="gaussian"),
    "mmvae_plus": mmvae_plus.Config(**LINEAR, private_dim=1, num_importance=3, family="gaussian"),
    "telbo": telbo.Config(**LINEAR, joint_hidden=(), beta=1.5),
    "dmvae": dmvae.Config(**LINEAR, private_dim=1, beta=1.5, private_beta=0.7),
    "cvae": cvae.Config(**LINEAR, joint_hidden=(), beta=1.5, condition_dim=4, condition_hidden=()),
    "crmvae": crmvae.Config(**LINEAR, beta=1.5),
    "cmvae": cmvae.Config(**LINEAR, private_dim=1, num_clusters=3, num_importance=3, family="gaussian"),
}
WITH_JOINT = ("jmvae", "telbo", "cvae")  # another encoder where everything is observed


@functools.cache
def built(name):
    """The model, its parameters in float64, with encoders that see what they should and decoders of some strength."""
    model = configs.build(CONFIGS[name], MODALITIES)
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), jax.jit(model.init)(jax.random.key(1)))
    if "joint" in params or name == "dmvae":  # wide and close to the prior, or importance weights have no variance
        heads = [params["condition"]["head"]] if name == "cvae" else [*params["experts"]["heads"].values()]
        for head in heads + ([params["joint"]["head"]] if "joint" in params else []):
            head["params"]["scale"]["bias"] += 1.5
            head["params"]["loc"]["kernel"] *= 0.2
    if "prior" in params:
        params["prior"]["logits"] = np.asarray([0.0, 1.0, -1.0])
    return model, params


def decoder(params, name):
    dense = params["decoders"][name]["params"]["Dense_0"]
    return np.asarray(dense["kernel"]).T, np.asarray(dense["bias"])


def exact_log_likelihood(name, subset):
    """log p(x_S) of linear decoders: x = W z + b + noise is Gaussian."""
    _, params = built(name)
    shared, blocks = CONFIGS[name].latent_dim, []
    for i, modality in enumerate(subset):
        weight, _ = decoder(params, modality)
        private = weight.shape[1] - shared  # a code of its own (MMVAE+), no other modality sees it
        row = np.zeros((len(weight), shared + len(subset) * private))
        row[:, :shared] = weight[:, :shared]
        row[:, shared + i * private : shared + (i + 1) * private] = weight[:, shared:]
        blocks.append(row)
    weight, mean = np.concatenate(blocks), np.concatenate([decoder(params, n)[1] for n in subset])
    x = np.concatenate([np.asarray(data()[n]) for n in subset], axis=1)
    covariance = weight @ weight.T + SCALE**2 * np.eye(len(weight))
    if "prior" not in params:
        return scipy.stats.multivariate_normal(mean, covariance).logpdf(x)
    each = [
        scipy.stats.multivariate_normal(mean + weight[:, :shared] @ loc, covariance).logpdf(x) for loc in params["prior"]["loc"]
    ]
    return scipy.special.logsumexp(np.stack(each, 1) + log_weights(params["prior"]["logits"]), axis=1)


def log_weights(logits):
    return logits - scipy.special.logsumexp(logits)


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


def encoded(name, modality):
    """q_j's location and scale `[N, D]`, in numpy, of linear encoders."""
    _, params = built(name)
    head = params["experts"]["heads"][modality]["params"]
    x = np.asarray(data()[modality])
    raw = x @ head["scale"]["kernel"] + head["scale"]["bias"]
    return x @ head["loc"]["kernel"] + head["loc"]["bias"], np.logaddexp(0, raw + np.log(np.e - 1)) + 1e-4


def product(gaussians, power):
    precision = power + sum(s**-2 for _, s in gaussians)
    return sum(m / s**2 for m, s in gaussians) / precision, precision**-0.5


def kl(first, second=(0.0, 1.0)):
    (m, s), (n, t) = first, second
    return (0.5 * ((s / t) ** 2 + ((m - n) / t) ** 2 - 1) - np.log(s / t)).sum(-1)


def expected_log_likelihood(name, modality, posterior):
    """E log p(x_j | z) `[N]` over a Gaussian."""
    (weight, bias), (mean, scale) = decoder(built(name)[1], modality), posterior
    error = np.asarray(data()[modality]) - mean @ weight.T - bias
    trace = (scale**2 @ (weight**2).T).sum(-1)
    constant = -error.shape[-1] * np.log(SCALE * np.sqrt(2 * np.pi))
    return constant - 0.5 * ((error**2).sum(-1) + trace) / SCALE**2


def exact_elbo(name, subset, power, beta, targets=None):
    posterior = product([encoded(name, n) for n in subset], power)
    return sum(expected_log_likelihood(name, n, posterior) for n in targets or subset) - beta * kl(posterior)


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


def losses(name, batch, num, seed=0, stage=0):
    model, params = built(name)
    return many(lambda key: model.stages[stage].loss(params, key, batch)[0], num, seed)


@pytest.mark.parametrize("name", ["mvae", "mopoe", "mvtcae", "dmvae", "crmvae"])
def test_the_loss_is_unbiased_for_the_objective_in_closed_form(name):
    check_mean(-losses(name, data(), 3_000), exact_objective(name, NAMES).mean())


@pytest.mark.parametrize("name", ["mvae", "mopoe", "mvtcae", "dmvae", "crmvae"])
def test_the_loss_of_incomplete_examples_is_that_of_what_they_have(name):
    exact = [exact_objective(name, tuple(n for n in NAMES if MASKS[n][i]))[i] for i in range(NUM)]
    check_mean(-losses(name, {**data(), types.MASKS: MASKS}, 3_000), np.mean(exact))


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


def gaussian_of(head, x):
    """Location and scale `[N, D]` of a linear head, in numpy."""
    loc, raw = (x @ head["params"][part]["kernel"] + head["params"][part]["bias"] for part in ("loc", "scale"))
    return loc, np.logaddexp(0, raw + np.log(np.e - 1)) + 1e-4


def joint_posterior(name):
    x = np.concatenate([np.asarray(data()[n]) for n in NAMES], axis=1)
    return gaussian_of(built(name)[1]["joint"]["head"], x)


def test_the_losses_of_telbos_stages_are_unbiased_for_their_elbos():
    beta, joint = CONFIGS["telbo"].beta, joint_posterior("telbo")
    exact = sum(expected_log_likelihood("telbo", n, joint) for n in NAMES) - beta * kl(joint)
    check_mean(-losses("telbo", data(), 3_000), exact.mean())
    experts = {n: (m, (1 + s**-2) ** -0.5) for n, (m, s) in ((n, encoded("telbo", n)) for n in NAMES)}
    exact = sum(expected_log_likelihood("telbo", n, expert) - beta * kl(expert) for n, expert in experts.items())
    check_mean(-losses("telbo", data(), 3_000, stage=1), exact.mean())


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
    check_mean(-losses("cvae", data(), 6_000), exact.mean())


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


def test_the_loss_of_jmvae_is_unbiased_for_its_objective():
    model, params = built("jmvae")
    config, joint = CONFIGS["jmvae"], joint_posterior("jmvae")
    experts = [(m, (1 + s**-2) ** -0.5) for m, s in (encoded("jmvae", n) for n in NAMES)]
    exact = sum(expected_log_likelihood("jmvae", n, joint) for n in NAMES) - config.beta * kl(joint)
    exact -= config.alpha * sum(kl(joint, expert) for expert in experts)
    check_mean(-losses("jmvae", data(), 3_000), exact.mean())
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
    terms = metrics["kl"] + 0.1 * metrics["kl_to_experts"]
    for progress, weight in ((0.0, 0.0), (0.25, 0.5), (0.5, 1.0), (0.9, 1.0)):
        loss, _ = stage.annealed(params, key, data(), jnp.asarray(progress))
        np.testing.assert_allclose(full - loss, (1 - weight) * terms, rtol=1e-8, atol=1e-10)


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


@pytest.mark.parametrize("name", ["mmvae", "mmvae_plus", "cmvae"])
def test_stratified_bounds_rise_with_the_number_of_draws_and_stay_below_the_likelihood(name):
    exact, bounds = exact_log_likelihood(name, NAMES).mean(), []
    for num in (1, 8):
        config = {f: getattr(CONFIGS[name], f) for f in CONFIGS[name].__dataclass_fields__} | {"num_importance": num}
        model = configs.build(type(CONFIGS[name])(**config), MODALITIES)
        params = built(name)[1]
        values = -many(lambda key, m=model: m.stages[0].loss(params, key, data())[0], 2_000)
        bounds.append((values.mean(), 5 * values.std(ddof=1) / np.sqrt(len(values))))
    for (low, low_error), (high, high_error) in zip(bounds, [*bounds[1:], (exact, 0.0)], strict=True):
        assert low < high + low_error + high_error


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


def test_auxiliary_priors_unlike_the_prior_cost_their_divergence():
    config = mmvae_plus.Config(**LINEAR, private_dim=1, family="gaussian")
    model, params = configs.build(config, MODALITIES), dict(built("mmvae_plus")[1])
    scale = 0.3
    params["auxiliary"] = {n: jnp.full(1, np.log(scale)) for n in NAMES}
    bound = -many(lambda key: model.stages[0].loss(params, key, data())[0], 2_000)
    divergence = kl((np.zeros(1), np.full(1, scale)))
    below = bound.mean() - 2 / 3 * 3 * divergence
    assert below < exact_log_likelihood("mmvae_plus", NAMES).mean() + 5 * bound.std() / np.sqrt(2_000)


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


def test_an_improper_product_of_wide_experts_shows_in_the_info():
    model = configs.build(jmvae.Config(**LINEAR, joint_hidden=(), wide_experts=True), MODALITIES)
    params = jax.tree.map(jnp.asarray, built("jmvae")[1])
    for head in params["experts"]["heads"].values():
        head["params"]["scale"]["bias"] = head["params"]["scale"]["bias"] + 5.0
    _, info = model.sample_posterior(params, jax.random.key(0), given("ab"), num_samples=2)
    assert np.asarray(info.improper).all()


def test_two_modalities_leave_mvae_no_random_subsets():
    model = configs.build(CONFIGS["mvae"], {n: MODALITIES[n] for n in "ab"})
    params = jax.jit(model.init)(jax.random.key(0))
    loss, _ = model.stages[0].loss(params, jax.random.key(0), given("ab"))
    assert jnp.isfinite(loss)
