"""JNF with linear networks against the exact posteriors of its own learned decoders."""

import dataclasses
import shutil

import compilations
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from experiments import experiment
from jnf_jax import specs, subsets
from jnf_jax.data import linear_gaussian, missing
from jnf_jax.flows import identity, maf
from jnf_jax.marginals import standard_normal
from jnf_jax.models import jnf
from jnf_jax.networks import mlp
from jnf_jax.posteriors import hmc, smc
from jnf_jax.projectors import base as projectors
from jnf_jax.projectors import contrastive
from jnf_jax.training import sharding, stages

NUM = 200
NUM_SAMPLES = 400
LARGEST_KL = 0.05  # nats, of a posterior in two dimensions, mean over test observations


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The experiment linear_gaussian/jnf, and the same stage 1 with plain Gaussian experts."""
    config = experiment.find("linear_gaussian/jnf")
    folder = tmp_path_factory.mktemp("runs")
    out = {}
    for name, flow in (("flow", config.model.flow), ("gaussian", identity.Config())):
        training = {stage: dataclasses.replace(settings, num_steps=1_500) for stage, settings in config.training.items()}
        variant = dataclasses.replace(config, model=dataclasses.replace(config.model, flow=flow), training=training)
        model, data = experiment.build(variant)
        if out:
            shutil.copytree(folder / "flow" / "params" / "joint", folder / name / "params" / "joint")
        mesh = sharding.make_mesh(1)
        params, _ = stages.train(model, jax.random.key(0), data, settings=variant.training, folder=folder / name, mesh=mesh)
        # on one device from here on: every device of the mesh would draw the same
        out[name] = (model, jax.device_get(params), data["test"].take(NUM))
    return out


def exact(model, params, observed):
    """The posterior under the learned decoders, which are linear."""
    maps = {}
    for name in model.specs:
        dense = params["decoders"][name]["params"]["Dense_0"]
        maps[name] = linear_gaussian.LinearMap(
            np.asarray(dense["kernel"]).T, np.asarray(dense["bias"]), model.specs[name].scale
        )
    return linear_gaussian.posterior(maps, observed)


def divergence(model, params, test, subset):
    """KL(exact || ours), `[N]`: the normaliser, where ours has none, by importance sampling from the exact one."""
    observed = {name: test.arrays[name] for name in subset}
    mean, covariance = exact(model, params, observed)
    root = np.linalg.cholesky(covariance)
    noise = np.random.default_rng(0).normal(size=(NUM_SAMPLES, NUM, mean.shape[1]))
    z = mean + noise @ root.T
    log_exact = -0.5 * (noise**2).sum(-1) - np.log(np.diag(root)).sum() - 0.5 * mean.shape[1] * np.log(2 * np.pi)
    log_ours = np.asarray(model.posterior_log_density(params, observed, jnp.asarray(z)))
    log_ratio = log_exact - log_ours
    normaliser = 0.0
    if 1 < len(subset) < len(model.specs):
        normaliser = np.log(np.mean(np.exp(-log_ratio - np.max(-log_ratio, 0)), 0)) + np.max(-log_ratio, 0)
    return log_ratio.mean(0) + normaliser


def test_every_posterior_is_close_to_the_exact_one_of_its_decoders(trained):
    model, params, test = trained["flow"]
    names = tuple(model.specs)
    for subset in [*subsets.proper(names), names]:
        kl = divergence(model, params, test, subset)
        assert -0.01 < kl.mean() < LARGEST_KL, f"{subset}: {kl.mean():.4f}"


@pytest.mark.slow
def test_half_of_all_modalities_missing_leave_every_posterior_close_to_the_exact_one_of_its_decoders():
    config = experiment.find("linear_gaussian/jnf")
    training = {stage: dataclasses.replace(settings, num_steps=1_500) for stage, settings in config.training.items()}
    variant = dataclasses.replace(
        config,
        data=missing.Config(data=config.data, fraction=0.5),
        model=dataclasses.replace(config.model, incomplete=True, joint_hidden=(64,)),
        training=training,
    )
    model, data = experiment.build(variant)
    assert len(data["train"].complete()) < 0.2 * len(data["train"])
    params, _ = stages.train(model, jax.random.key(0), data, settings=training, mesh=sharding.make_mesh(1))
    names, params, test = tuple(model.specs), jax.device_get(params), data["test"].take(NUM)
    for subset in [*subsets.proper(names), names]:
        kl = divergence(model, params, test, subset)
        assert -0.01 < kl.mean() < 2 * LARGEST_KL, f"{subset}: {kl.mean():.4f}"


def test_the_flow_is_not_worse_than_the_gaussian(trained):
    for name in trained["flow"][0].specs:
        flow, gaussian = (divergence(*trained[kind], (name,)) for kind in ("flow", "gaussian"))
        difference = flow - gaussian
        assert difference.mean() < 3 * difference.std() / np.sqrt(NUM), (
            f"{name}: {flow.mean():.4f} against {gaussian.mean():.4f}"
        )


def test_draws_of_subsets_have_the_moments_of_the_exact_posterior(trained):
    model, params, test = trained["flow"]
    for subset in subsets.of_size(tuple(model.specs), 2):
        observed = {name: test.arrays[name][:50] for name in subset}
        mean, covariance = exact(model, params, observed)
        z, info = model.sample_posterior(params, jax.random.key(1), observed, num_samples=100)
        assert not np.asarray(info.improper).any()
        whitened = (np.asarray(z) - mean) @ np.linalg.inv(np.linalg.cholesky(covariance)).T
        # a posterior within LARGEST_KL nats of N(0, I) has a mean within sqrt(2 KL) of 0 and variances as close to 1
        assert np.abs(whitened.mean(0)).mean() < np.sqrt(2 * LARGEST_KL)
        assert np.abs(whitened.var(0).mean(0) - 1).max() < np.sqrt(2 * LARGEST_KL)


def test_the_importance_estimate_is_the_exact_log_likelihood(trained):
    model, params, test = trained["flow"]
    for subset in (("x1",), ("x0", "x2"), tuple(model.specs)):
        observed = {name: test.arrays[name] for name in subset}
        estimate = np.asarray(model.log_likelihood(params, jax.random.key(0), observed, num_importance=500))
        weights, biases = [], []
        for name in subset:
            dense = params["decoders"][name]["params"]["Dense_0"]
            weights.append(np.asarray(dense["kernel"]).T)
            biases.append(np.asarray(dense["bias"]))
        weight = np.concatenate(weights)
        x = np.concatenate([observed[name] for name in subset], axis=1) - np.concatenate(biases)
        covariance = weight @ weight.T + np.eye(len(weight))
        expected = jax.vmap(lambda x: jax.scipy.stats.multivariate_normal.logpdf(x, jnp.zeros(len(weight)), covariance))(x)
        np.testing.assert_allclose(estimate.mean(), np.asarray(expected).mean(), atol=0.02)


def test_rescaling_weighs_each_modality_by_the_largest_over_its_own_size():
    modalities = {"a": specs.ModalitySpec(shape=(2,)), "b": specs.ModalitySpec(shape=(8,))}
    base = jnf.Config(latent_dim=2, network=mlp.Config(hidden=()), joint_hidden=())

    plain, rescaled = (jnf.build(dataclasses.replace(base, rescale=r), modalities) for r in (False, True))
    params = jax.jit(plain.init)(jax.random.key(0))
    batch = {"a": jnp.ones((4, 2)), "b": jnp.ones((4, 8))}
    first, metrics = plain.stages[0].loss(params, jax.random.key(1), batch)
    second, _ = rescaled.stages[0].loss(params, jax.random.key(1), batch)
    np.testing.assert_allclose(second - first, -3 * metrics["log_likelihood/a"], rtol=1e-10)


@pytest.mark.parametrize("covariance", ["full", "diagonal"])
def test_a_full_covariance_can_be_the_exact_joint_posterior(covariance):
    """That of linear decoders is one Gaussian, whose coordinates are correlated: one importance sample then tells the likelihood."""
    modalities = {name: specs.ModalitySpec(shape=(3,), scale=0.7) for name in "ab"}
    linear = {"network": mlp.Config(hidden=()), "joint_hidden": (), "flow": identity.Config()}
    model = jnf.build(jnf.Config(latent_dim=2, joint_covariance=covariance, **linear), modalities)
    params = jax.jit(model.init)(jax.random.key(0))
    rng = np.random.default_rng(0)
    x = {name: rng.normal(size=(5, 3)) for name in modalities}
    mean, true_covariance = exact(model, params, x)
    slope = np.concatenate([exact(model, params, {**dict.fromkeys(x, np.zeros((3, 3))), n: np.eye(3)})[0] for n in x])
    offset = exact(model, params, {name: np.zeros((1, 3)) for name in x})[0]
    factor = np.linalg.cholesky(true_covariance)
    scale = np.diag(factor)
    head = params["joint"]["head"]["params"]
    head["loc"] = {"kernel": slope - offset, "bias": offset[0]}
    head["scale"] = {"kernel": 0 * head["scale"]["kernel"], "bias": np.log(np.expm1(scale - 1e-4)) - np.log(np.e - 1)}
    if covariance == "full":
        assert not np.any(head["lower"]["kernel"])  # untrained, it is diagonal
        head["lower"] = {"kernel": head["lower"]["kernel"], "bias": (factor / scale[:, None])[1, :1]}
    weight = [np.asarray(params["decoders"][name]["params"]["Dense_0"]["kernel"]).T for name in x]
    marginal = scipy.stats.multivariate_normal(cov=np.vstack(weight) @ np.vstack(weight).T + 0.7**2 * np.eye(6))
    found = model.log_likelihood(params, jax.random.key(1), x, num_importance=1)
    close = np.abs(np.asarray(found) - marginal.logpdf(np.concatenate(list(x.values()), 1))) < 1e-4
    assert close.all() == (covariance == "full")
    if covariance == "full":
        z = np.asarray(model.sample_posterior(params, jax.random.key(2), x, num_samples=4_000)[0]) - mean
        correlation = lambda c: c[0, 1] / np.sqrt(c[0, 0] * c[1, 1])
        assert abs(correlation(true_covariance)) > 0.2
        np.testing.assert_allclose(
            correlation(np.cov(z.reshape(-1, 2).T)), correlation(true_covariance), atol=4.5 / np.sqrt(20_000)
        )


def test_beta_weighs_the_kl_term():
    modalities = {name: specs.ModalitySpec(shape=(2,)) for name in "ab"}
    config = lambda beta: jnf.Config(latent_dim=2, network=mlp.Config(hidden=()), joint_hidden=(), beta=beta)
    batch = {name: jnp.ones((4, 2)) for name in "ab"}
    models = [jnf.build(config(beta), modalities) for beta in (1.0, 2.5)]
    params = jax.jit(models[0].init)(jax.random.key(0))
    (one, metrics), (two, _) = (model.stages[0].loss(params, jax.random.key(1), batch) for model in models)
    np.testing.assert_allclose(two - one, 1.5 * metrics["kl"], rtol=1e-10)


def test_beta_comes_down_by_equal_factors_and_then_stays():
    modalities = {name: specs.ModalitySpec(shape=(2,)) for name in "ab"}
    config = jnf.Config(latent_dim=2, network=mlp.Config(hidden=()), joint_hidden=(), initial_beta=16.0, annealing=0.5)
    model = jnf.build(config, modalities)
    stage = model.stages[0]
    params, key = jax.jit(model.init)(jax.random.key(0)), jax.random.key(1)
    batch = {name: jnp.ones((4, 2)) for name in "ab"}
    validated, metrics = stage.loss(params, key, batch)
    for progress, beta in ((0.0, 16.0), (0.125, 8.0), (0.25, 4.0), (0.5, 1.0), (0.9, 1.0)):
        loss, found = stage.annealed(params, key, batch, jnp.asarray(progress))
        np.testing.assert_allclose(found["beta"], beta, rtol=1e-6)
        np.testing.assert_allclose(loss - validated, (beta - 1) * metrics["kl"], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beta": 0.0}, "positive beta"),
        ({"latent_dim": 0}, "latent dimension of at least 1"),
        ({"initial_beta": 0.0}, "positive initial_beta"),
        ({"precision": "float16"}, "jnf.precision, got 'float16'"),
        ({"initial_beta": 4.0, "annealing": 0.0}, r"annealing in \(0, 1\], got 4.0 and 0.0"),
    ],
)
def test_nonsense_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        jnf.build(jnf.Config(**options), {name: specs.ModalitySpec(shape=(2,)) for name in "ab"})


def test_an_observation_with_nan_shows_in_the_info_of_every_subset():
    names = ("a", "b", "c")
    config = jnf.Config(latent_dim=2, network=mlp.Config(hidden=(8,)), flow=maf.Config(hidden=(8,)))
    model = jnf.build(config, {n: specs.ModalitySpec(shape=(2,)) for n in names})
    params = model.init(jax.random.key(0))
    x = jnp.zeros((3, 2)).at[1, 0].set(jnp.nan)
    for size in (1, 2, 3):
        _, info = model.sample_posterior(params, jax.random.key(1), dict.fromkeys(names[:size], x), num_samples=4)
        assert info.improper.tolist() == [False, True, False]
        assert jnp.isnan(info.rhat).tolist() == [False, True, False]


def test_one_modality_is_refused():
    with pytest.raises(ValueError, match="at least two modalities"):
        jnf.build(jnf.Config(), {"a": specs.ModalitySpec(shape=(2,))})


def test_frozen_features_see_images_on_their_support():
    image = specs.ModalitySpec(shape=(6, 6, 1), support=(0.0, 1.0))
    kernel = jnp.ones((3, 3, 1, 2), jnp.float32)  # `lax.conv` takes floats alone
    convolved = lambda x: jax.lax.conv_general_dilated(x, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    features = projectors.given({name: lambda x: convolved(x).mean((1, 2)) for name in "ab"})
    config = jnf.Config(latent_dim=2, network=mlp.Config(hidden=()), projected_hidden=(8,), flow=identity.Config())
    model = jnf.build(config, {name: image for name in "ab"}, projector=features)
    params = jax.jit(model.init)(jax.random.key(0))
    white = jnp.full((3, 6, 6, 1), 255, jnp.uint8)
    np.testing.assert_allclose(model.project(params, "a", white), 9, rtol=1e-6)


def test_a_projector_is_trained_on_what_it_is_used_on():
    seen = {}

    def loss(params, key, batch):
        seen["trained"] = (batch["a"].dtype, float(batch["a"].max()))
        return params["scale"] * batch["a"].mean(), {}

    def project(params, name, x):
        seen["used"] = (x.dtype, float(x.max()))
        return params["scale"] * x.reshape(len(x), -1)

    own = projectors.Projector(init=lambda key: {"scale": jnp.ones(())}, project=project, loss=loss)
    image = specs.ModalitySpec(shape=(2, 2, 1), support=(0.0, 1.0))
    config = jnf.Config(latent_dim=2, network=mlp.Config(hidden=()), projected_hidden=(8,), flow=identity.Config())
    model = jnf.build(config, {name: image for name in "ab"}, projector=own)
    assert [(stage.name, stage.needs) for stage in model.stages] == [
        ("projector", ()), ("joint", ()), ("marginal", ("joint",)), ("experts", ("projector", "joint")),
        ("divisors", ("projector", "joint", "experts")),
    ]  # fmt: skip
    params, white = {"projector": {"scale": jnp.ones(())}}, jnp.full((3, 2, 2, 1), 255, jnp.uint8)
    with jax.disable_jit():
        model.stages[0].loss(params, jax.random.key(0), {"a": white, "b": white})
        model.project(params, "a", white)
    assert seen["trained"] == seen["used"]
    assert seen["used"][1] == 1


def test_one_dimension_has_no_correlations():
    config = jnf.Config(
        latent_dim=1, joint_covariance="full", network=mlp.Config(hidden=()), joint_hidden=(), flow=identity.Config()
    )
    model = jnf.build(config, {name: specs.ModalitySpec(shape=(2,)) for name in "ab"})
    assert all(
        leaf.size for leaf in jax.tree.leaves(jax.eval_shape(model.init, jax.random.key(0)))
    )  # Orbax saves no empty array


def test_stage_1_does_not_depend_on_the_fields_said_to_be_none_of_its():
    """Whatever the other fields, the same parameters give the same loss."""
    modalities = {name: specs.ModalitySpec(shape=(4,)) for name in "ab"}
    config = jnf.Config(latent_dim=2, network=mlp.Config(hidden=(8,)), joint_hidden=(8,), flow=maf.Config(hidden=(8,)))
    others = {
        "projector": contrastive.Config(dim=2),
        "projected_hidden": (4,),
        "flow": identity.Config(),
        "wide_experts": True,
        "marginal": standard_normal.Config(),
        "num_codes": 10,
        "product_rule": "prior",
        "sampler": hmc.Config(num_chains=2),
    }
    assert set(others) == set(jnf.Config.NOT_OF_STAGE["joint"])
    batch = {name: jnp.asarray(np.random.default_rng(i).normal(size=(5, 4))) for i, name in enumerate("ab")}
    model = jnf.build(config, modalities)
    params = jax.jit(model.init)(jax.random.key(0))
    loss = model.stages[0].loss(params, jax.random.key(1), batch)[0]
    other = jnf.build(dataclasses.replace(config, **others), modalities)
    changed = jax.jit(other.init)(jax.random.key(0))
    params = {**changed, "joint": params["joint"], "decoders": params["decoders"]}
    joint = next(stage for stage in other.stages if stage.name == "joint")
    np.testing.assert_array_equal(joint.loss(params, jax.random.key(1), batch)[0], loss)
    jax.tree.map(np.testing.assert_array_equal, changed["joint"], params["joint"])  # the same start as well


def test_frozen_features_of_ones_own_take_a_projectors_place():
    modalities = {name: specs.ModalitySpec(shape=(4,)) for name in "ab"}
    weight = np.random.default_rng(0).normal(size=(4, 3))
    features = projectors.given({"a": lambda x: x @ weight, "b": lambda x: x[:, :1]})
    config = jnf.Config(latent_dim=2, network=mlp.Config(hidden=()), projected_hidden=(8,), flow=identity.Config())
    model = jnf.build(config, modalities, projector=features)
    assert "projector" not in [stage.name for stage in model.stages]  # nothing to train
    params = jax.jit(model.init)(jax.random.key(0))
    x = jnp.asarray(np.random.default_rng(1).normal(size=(5, 4)))
    np.testing.assert_allclose(model.project(params, "a", x), x @ weight, rtol=1e-6)
    z, _ = model.sample_posterior(params, jax.random.key(1), {"b": x}, num_samples=3)
    again, _ = model.sample_posterior(params, jax.random.key(1), {"b": x.at[:, 1:].add(9.0)}, num_samples=3)
    np.testing.assert_array_equal(z, again)  # what the features drop, no draw can see
    with pytest.raises(ValueError, match=r"Expected features of modality 'b', got features of \['a'\]"):
        jax.eval_shape(jnf.build(config, modalities, projector=projectors.given({"a": lambda x: x})).init, jax.random.key(0))


def test_densities_normalisers_and_likelihoods_are_compiled_once_for_each_number_of_experts():
    modalities = {name: specs.ModalitySpec(shape=(2,)) for name in "abc"}
    small = {"latent_dim": 2, "network": mlp.Config(hidden=(4,)), "joint_hidden": (4,), "flow": identity.Config()}
    model = jnf.build(jnf.Config(**small), modalities)
    params = model.init(jax.random.key(0))
    batch = {name: jnp.ones((3, 2)) for name in modalities}
    config = smc.Config(num_particles=4, num_temperatures=2)

    def all_of(subset):
        observed = {name: batch[name] for name in subset}
        model.posterior_log_density(params, observed, jnp.zeros((1, 3, 2)))
        model.log_normaliser(params, jax.random.key(0), observed, config=config)
        model.log_likelihood(params, jax.random.key(0), observed, num_importance=2)

    for name in modalities:
        all_of((name,))
    first, *others = subsets.of_size(tuple(modalities), 2)
    all_of(first)
    before = compilations.count()
    for subset in others:
        all_of(subset)
    assert compilations.count() == before
