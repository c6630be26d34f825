import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from experiments import evaluate, inference_gap, measures
from jnf_jax import keys, specs
from jnf_jax import types as jnf_types
from jnf_jax.data import source
from jnf_jax.marginals import flow
from jnf_jax.metrics import frechet, subset_score


def test_distances_that_only_some_modalities_have_are_told_for_those():
    real = {"b": types.SimpleNamespace(features=np.zeros((7, 2)))}
    run = types.SimpleNamespace(test=range(5), real=real)
    distances = {
        ("a",): {"b": {"distance": 1.0, "extrapolated": 0.5}, "c": {"distance": 3.0}},
        ("b",): {"c": {"distance": 5.0}},
    }
    result = measures._frechet(run, distances)
    assert result["distance"]["by_size"] == {"1": 3.0}
    assert result["extrapolated"] == {"by_size": {"1": 0.5}, "by_subset": {"a": {"b": 0.5}}}
    assert (result["num_generated"], result["num_real"]) == (5, 7)


def test_joint_coherence_is_named_by_the_density_that_it_is_of():
    model = types.SimpleNamespace(
        config=types.SimpleNamespace(marginal=flow.Config()),
        latent_dim=3,
        sample_prior=lambda params, key, *, num_samples: np.zeros((num_samples, 3)),
    )
    judged = lambda z: {
        "a": types.SimpleNamespace(classes=np.zeros(len(z))),
        "b": types.SimpleNamespace(classes=np.sign(z[:, 0])),
    }
    run = types.SimpleNamespace(model=model, params={"marginal": {"flow": 1}}, key=jax.random.key(0), judge=judged)
    found = measures.joint(run, {}, num_prior=50, num_codes=0)
    assert found == {"joint_coherence": 1.0, "joint_coherence_by_density": {"prior": 0.0, "flow": 1.0}}


def test_diversity_does_not_depend_on_the_numbers_of_categories():
    spec = specs.ModalitySpec(shape=(4,), likelihood="categorical", num_categories=5)
    rng = np.random.default_rng(0)
    draws, data, labels = rng.integers(0, 5, (6, 30, 4)), rng.integers(0, 5, (30, 4)), np.arange(30) % 2

    def diversity(numbers):
        logits = 9 * jax.nn.one_hot(numbers[draws], 5)
        model = types.SimpleNamespace(specs={"a": spec}, decode=lambda params, z: {"a": logits})
        test = types.SimpleNamespace(arrays={"a": numbers[data]}, labels=labels)
        run = types.SimpleNamespace(model=model, params={}, test=test)
        return measures._diversity(run, np.zeros((6, 30, 1)), ("a",))["a"]

    assert diversity(np.arange(5)) == pytest.approx(diversity(np.asarray([3, 0, 4, 1, 2])))


def test_standard_errors_are_those_of_means():
    """Of 1, 2, 3, 4 the standard deviation is sqrt(5/3), the mean's error half of that."""
    expected = {"mean": 2.5, "standard_error": pytest.approx(np.sqrt(5 / 3) / 2)}
    values = np.asarray([1.0, 2.0, 3.0, 4.0])
    assert measures.with_error(values) == expected
    assert inference_gap._summary(values) == expected | {"values": [1, 2, 3, 4]}
    # subsets have the same observations: twice the same values tell no more than once
    found = measures.scores({("a",): list(values), ("b",): list(values), ("a", "b"): list(2 * values)})
    assert found["by_size"] == {"1": expected, "2": {"mean": 5.0, "standard_error": pytest.approx(np.sqrt(5 / 3))}}
    assert found["by_subset"]["b"] == expected
    assert found["num_observations"] == 4


SCALE, NUM = 0.5, 40
LAWS = {name: specs.ModalitySpec(shape=(1,), scale=SCALE) for name in "ab"}


class Copies:
    """A model whose codes `[1]` are what each modality shows, but for its noise: every density in closed form."""

    specs = LAWS
    latent_dim = 1
    project = None
    log_normaliser = None
    config = None

    def __init__(self):
        self.asked = []

    def posterior(self, observed):
        x = np.stack([np.asarray(value)[:, 0] for value in observed.values()])
        variance = 1 / (1 + len(x) / SCALE**2)
        return variance * x.sum(0) / SCALE**2, np.sqrt(variance)

    def sample_posterior(self, params, key, observed, *, num_samples):
        mean, scale = self.posterior(observed)
        z = jnp.asarray(mean[None, :, None] + scale * jax.random.normal(key, (num_samples, len(mean), 1)))
        return z, jnf_types.exact_info(z)

    def sample_prior(self, params, key, *, num_samples):
        return jax.random.normal(key, (num_samples, 1))

    def posterior_log_density(self, params, observed, z):
        mean, scale = self.posterior(observed)
        return scipy.stats.norm(mean, scale).logpdf(np.asarray(z)[..., 0])

    def decode(self, params, z):
        return dict.fromkeys(LAWS, z)

    def log_likelihood(self, params, key, observed, *, num_importance):
        self.asked.append(num_importance)
        x = np.concatenate([np.asarray(value) for value in observed.values()], axis=1)
        covariance = 1 + SCALE**2 * np.eye(x.shape[1])
        return scipy.stats.multivariate_normal(np.zeros(x.shape[1]), covariance).logpdf(x)

    def elbo(self, params, key, observed):
        return self.log_likelihood(params, key, observed, num_importance=0) - 1


def copies(data=None, **fields):
    rng = np.random.default_rng(0)
    z = rng.normal(size=(NUM, 1))
    arrays = {name: z + SCALE * rng.normal(size=(NUM, 1)) for name in LAWS}
    test = source.Source(specs=LAWS, arrays=arrays, labels=np.arange(NUM) % 2) if data is None else data
    plain = {
        "model": Copies(), "params": {}, "test": test, "key": jax.random.key(0), "batch_size": 15, "judges": None,
        "judge_params": None, "real": {}, "real_labels": None, "inception": None, "on_progress": lambda *told: None,
    }  # fmt: skip
    return measures.Run(**(plain | fields))


def test_likelihoods_are_those_of_the_observations_and_the_asked_precision():
    run = copies()
    found = measures.likelihoods(run, run.test, num_observations=30, num_importance=7)
    x = np.concatenate([run.test.arrays[name][:30] for name in LAWS], axis=1)
    joint = scipy.stats.multivariate_normal(np.zeros(2), 1 + SCALE**2 * np.eye(2)).logpdf(x)
    alone = scipy.stats.norm(0, np.sqrt(1 + SCALE**2)).logpdf(x)
    values = found["log_likelihood"]
    assert (values["num_observations"], values["num_importance"]) == (30, 7)
    assert set(run.model.asked) == {0, 7}
    for label, expected in (("all", joint), ("a", alone[:, 0]), ("rest given b", joint - alone[:, 1])):
        assert values[label] == pytest.approx(expected.mean())
        assert values[f"{label}_standard_error"] == pytest.approx(expected.std(ddof=1) / np.sqrt(30))
    everything = run.model.log_likelihood({}, None, run.test.arrays, num_importance=0)
    assert found["elbo"] == pytest.approx(everything.mean() - 1)


def test_a_score_is_that_of_an_observations_own_codes():
    run = copies()
    found = measures.score(run, ("a",), num_observations=20)
    test = run.test.take(20)
    key = keys.stream(run.key, "score")
    codes = np.asarray(subset_score.draw_codes(run.model, {}, key, dict(test.arrays), num_codes=8))
    mean, scale = run.model.posterior({"a": test.arrays["a"]})
    np.testing.assert_allclose(found, scipy.stats.norm(mean, scale).logpdf(codes[..., 0]).mean(0), atol=1e-4)


def test_reconstructions_are_compared_with_what_they_reconstruct():
    run = copies()
    found = measures.reconstructions(run, run.test.arrays["a"] + 0.1)
    assert found["a"]["mean_squared_error"] == pytest.approx(0.01)
    assert found["b"]["mean_squared_error"] == pytest.approx(((run.test.arrays["a"] + 0.1 - run.test.arrays["b"]) ** 2).mean())


def test_the_density_of_codes_is_fitted_to_training_codes(monkeypatch):
    """Training codes lie above 0, those of the test examples below."""
    rng = np.random.default_rng(0)
    part = lambda shift, num: source.Source(specs=LAWS, arrays={n: rng.normal(shift, 0.1, (num, 1)) for n in LAWS})
    data = {"train": part(3.0, 400), "validation": part(3.0, 100), "test": part(-3.0, 50)}
    run = copies(data["test"], judges="any")
    judge = lambda self, z: {name: types.SimpleNamespace(classes=np.where(np.asarray(z)[:, 0] > 0, 1, -1)) for name in LAWS}
    monkeypatch.setattr(measures.Run, "judge", judge)
    found = measures.joint(run, data, num_prior=2_000, num_codes=400)
    assert found["joint_coherence"] == found["joint_coherence_by_density"]["prior"] == pytest.approx(0.5, abs=0.06)
    assert found["joint_coherence_by_density"]["mixture"] == 1


def test_the_fid_is_that_of_the_first_modality_on_the_unit_interval(monkeypatch):
    weights = types.SimpleNamespace(sha256="7")
    monkeypatch.setattr(measures.inception, "features", lambda given, images: np.asarray(images) if given is weights else None)
    real = np.random.default_rng(1).random((50, 1))
    run = copies(inception=(weights, real))
    z = np.random.default_rng(2).normal(size=(NUM, 1))
    found = measures._inception_distance(run, "a", z)
    assert found == pytest.approx(frechet.distance(z.clip(0, 1), real))


def test_chains_are_summed_up_by_what_they_are():
    told = jnf_types.Info(
        acceptance=np.asarray([0.9, 0.7, 0.8]), divergences=np.asarray([0, 3, 1]), rhat=np.asarray([1.0, 1.2, 1.005]),
        ess=np.asarray([10.0, 30.0, 20.0]), step_size=np.ones(3), improper=np.asarray([True, False, False]),
    )  # fmt: skip
    found = evaluate.chain_summary(told, 1.01)
    assert found["acceptance"] == pytest.approx(0.8)
    assert (found["divergences"], found["improper"]) == (4, 1)
    assert (found["rhat_median"], found["rhat_largest"], found["ess_median"]) == (1.005, 1.2, 20)
    assert found["share_below"] == pytest.approx(2 / 3)
    assert found["untrusted"] == {"rhat": [1], "improper": [0], "divergent": [1, 2]}


def test_no_mixture_is_fitted_to_one_code():
    model = types.SimpleNamespace(
        config=types.SimpleNamespace(),
        specs={"a": None},
        sample_prior=lambda params, key, *, num_samples: np.zeros((num_samples, 3)),
    )
    judged = lambda z: {"a": types.SimpleNamespace(classes=np.zeros(len(z)))}
    run = types.SimpleNamespace(model=model, params={}, key=jax.random.key(0), judge=judged)
    spec = specs.ModalitySpec(shape=(1,))
    masks = {"a": np.asarray([True, False, False])}
    data = dict.fromkeys(
        ("train", "validation"),
        source.Source(specs={"a": spec, "b": spec}, arrays=dict.fromkeys("ab", np.zeros((3, 1))), masks=masks),
    )
    for num_codes in (1, 100):
        assert measures.joint(run, data, num_prior=5, num_codes=num_codes)["joint_coherence_by_density"] == {"prior": 1.0}


def test_parts_of_an_evaluation_belong_to_its_labels():
    spec = specs.ModalitySpec(shape=(1,))
    data = lambda labels: source.Source(specs={"a": spec}, arrays={"a": np.zeros((3, 1))}, labels=labels)
    about = lambda labels: evaluate._about_labels(data(labels))
    assert about(np.asarray([0, 1, 2])) == about(np.asarray([0, 1, 2], np.int32)) != about(np.asarray([0, 2, 1]))
    assert about(None) == {"labels": None}


def test_there_is_a_floor_where_every_class_was_trained_on():
    spec = specs.ModalitySpec(shape=(1,))
    of = lambda labels: source.Source(specs={"a": spec}, arrays={"a": np.zeros((3, 1))}, labels=labels)
    train = of(np.asarray([0, 1, 1]))
    assert inference_gap._has_floor(of(np.asarray([1, 1, 0])), train)
    assert not inference_gap._has_floor(of(np.asarray([1, 2, 0])), train)
    assert not inference_gap._has_floor(of(None), train)
