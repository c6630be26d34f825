"""JNF with linear networks against the exact posteriors of its own learned decoders."""

import dataclasses
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from experiments import experiment
from jnf_jax import specs, subsets
from jnf_jax.data import linear_gaussian, missing
from jnf_jax.flows import identity
from jnf_jax.models import jnf
from jnf_jax.networks import mlp
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
