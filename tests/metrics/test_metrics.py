from types import SimpleNamespace

import compilations
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jnf_jax import configs, specs, types
from jnf_jax.data import linear_gaussian, source
from jnf_jax.likelihoods import heteroscedastic
from jnf_jax.metrics import classifiers, coherence, diversity
from jnf_jax.models import jnf
from jnf_jax.networks import conv, mlp
from jnf_jax.posteriors import hmc
from jnf_jax.training import fit


def test_coherence_of_known_predictions():
    labels = np.array([0, 1, 2, 3])
    predicted = {"a": np.array([0, 1, 2, 3]), "b": np.array([0, 1, 0, 0]), "c": np.array([0, 0, 0, 0])}
    assert coherence.conditional(predicted, labels, ("a",)) == {"b": 0.5, "c": 0.25}
    assert coherence.joint(predicted) == 0.25


def test_coherence_by_size_averages_over_subsets_and_targets():
    by_subset = {("a",): {"b": 0.5, "c": 0.25}, ("b",): {"a": 1.0, "c": 0.25}, ("a", "b"): {"c": 0.9}}
    assert coherence.by_size(by_subset) == {1: 0.5, 2: 0.9}


def test_pairwise_distance_of_known_points():
    points = np.array([[0.0, 0.0], [3.0, 4.0], [0.0, 0.0]])  # distances 5, 0, 5 over sqrt(2)
    np.testing.assert_allclose(diversity.pairwise_distance(points), 10 / 3 / np.sqrt(2))
    with pytest.raises(ValueError, match="at least two images"):
        diversity.pairwise_distance(points[:1])


def test_diversity_is_one_for_real_images_and_zero_for_copies():
    rng = np.random.default_rng(0)
    classes = np.repeat([0, 1], 300)
    real = rng.normal(size=(600, 4, 4, 1)) * (1 + 3 * classes)[:, None, None, None]
    again = rng.normal(size=(2, 200, 4, 4, 1)) * np.array([1, 4])[:, None, None, None, None]
    assert diversity.diversity(again, np.array([0, 1]), real, classes) == pytest.approx(1, abs=0.05)
    lonely = np.concatenate([classes, [2]])  # a class of one real image says nothing
    three = np.concatenate([again, again[:1]])
    alone = diversity.diversity(three, np.array([0, 1, 2]), np.concatenate([real, real[:1]]), lonely)
    assert alone == pytest.approx(diversity.diversity(again, np.array([0, 1]), real, classes))
    assert np.isnan(diversity.diversity(three[2:], np.array([2]), np.concatenate([real, real[:1]]), lonely))
    copies = np.repeat(again[:, :1], 5, axis=1)
    assert diversity.diversity(copies, np.array([0, 1]), real, classes) == pytest.approx(0, abs=1e-6)


def test_a_class_whose_real_images_are_all_alike_does_not_count():
    rng = np.random.default_rng(0)
    varied, alike = rng.normal(size=(50, 4)), np.ones((50, 4))
    real, classes = np.concatenate([varied, alike]), np.repeat([0, 1], 50)
    generated = rng.normal(size=(2, 30, 4))
    both = diversity.diversity(generated, np.array([0, 1]), real, classes)
    wide = np.concatenate(
        [varied, 10 * varied]
    )  # of two classes whose scales differ the ratios are averaged, not the distances
    pair = diversity.diversity(np.stack([generated[0], 5 * generated[0]]), np.array([0, 1]), wide, classes)
    assert pair == pytest.approx(0.75 * diversity.diversity(generated[:1], np.array([0]), varied, classes[:50]))
    assert both == diversity.diversity(generated[:1], np.array([0]), real, classes)
    assert np.isnan(diversity.diversity(generated[1:], np.array([1]), real, classes))


@pytest.fixture(scope="module")
def small():
    data = {s: linear_gaussian.build(linear_gaussian.Config(num_train=400, num_test=25), s) for s in source.SPLITS}
    config = jnf.Config(latent_dim=2, network=mlp.Config(hidden=(8,)), sampler=hmc.Config(num_warmup=20, num_chains=2))
    model = configs.build(config, data["train"].specs)
    return model, jax.jit(model.init)(jax.random.key(0)), data


@pytest.mark.parametrize("subset", [("x1",), ("x0", "x2"), ("x0", "x1", "x2")])
def test_draws_of_the_last_batch_are_filled_up_and_cut(small, subset):
    model, params, data = small
    draws = coherence.draw(model, params, jax.random.key(0), data["test"], subset, num_samples=3, batch_size=10)
    assert draws.z.shape == (3, 25, 2)
    assert {field.shape for field in draws.info} == {(25,)}
    assert np.isfinite(draws.z).all()


def test_draws_are_those_of_their_own_observation_and_each_batch_has_its_own_key():
    def sample_posterior(params, key, observed, *, num_samples):
        x = jnp.asarray(observed["a"])
        z = jnp.stack(
            [x + 0 * jax.random.normal(key, (num_samples, *x.shape)), jax.random.normal(key, (num_samples, *x.shape))]
        )
        z = jnp.moveaxis(z[..., 0], 0, -1)
        return z, types.exact_info(z)

    model = SimpleNamespace(sample_posterior=sample_posterior)
    spec = specs.ModalitySpec(shape=(1,))
    data = source.Source(specs={"a": spec}, arrays={"a": np.arange(25.0)[:, None]})
    draws = coherence.draw(model, {}, jax.random.key(0), data, ("a",), num_samples=3, batch_size=10)
    np.testing.assert_array_equal(draws.z[..., 0], np.broadcast_to(np.arange(25.0), (3, 25)))
    assert len(np.unique(draws.z[..., 1])) == 3 * 25


def test_what_is_seen_in_decoded_codes_does_not_depend_on_the_batch(small):
    model, params, _ = small
    judges = classifiers.build(classifiers.Config(network=mlp.Config(hidden=(8,))), model.specs, 2)
    judge_params = judges.init(jax.random.key(1))
    z = np.random.default_rng(0).normal(size=(23, 2))
    whole, parts = (coherence.judge_decoded(model, params, judges, judge_params, z, batch_size=size) for size in (23, 7))
    for name in model.specs:
        np.testing.assert_array_equal(whole[name].classes, parts[name].classes)
        np.testing.assert_allclose(whole[name].features, parts[name].features, rtol=1e-5)
        assert whole[name].features.shape == (23, 8)


@pytest.mark.parametrize(
    "options", [{"likelihood": heteroscedastic.Config()}, {"likelihood": "categorical", "num_categories": 3}]
)
def test_images_of_any_likelihood_have_classifiers(options):
    image, flat = specs.ModalitySpec(shape=(8, 8, 1), **options), specs.ModalitySpec(shape=(8, 8), **options)
    judges = classifiers.build(classifiers.Config(network=conv.Config(channels=(4,), hidden=6)), {"a": image, "b": flat}, 2)
    params = judges.init(jax.random.key(0))
    for name, shape in (("a", (8, 8, 1)), ("b", (8, 8))):
        assert judges.judge(params, name, np.ones((3, *shape), np.float32))[0].shape == (3, 2)


def test_classifiers_of_one_form_are_one_program():
    shapes = {"a": (3,), "b": (3,), "c": (4,)}
    modalities = {name: specs.ModalitySpec(shape=shape) for name, shape in shapes.items()}
    config = classifiers.Config(network=mlp.Config(hidden=(5,)), networks={"d": mlp.Config(hidden=(6,))})
    judges = classifiers.build(config, modalities | {"d": modalities["a"]}, 2)
    params = judges.init(jax.random.key(0))
    x = {name: np.ones((7, *shape)) for name, shape in (shapes | {"d": (3,)}).items()}
    counts, logits = {}, {}
    for name in x:
        before = compilations.count()
        logits[name], _ = judges.judge(params, name, x[name])
        counts[name] = compilations.count() - before
    assert counts == {"a": 1, "b": 0, "c": 1, "d": 1}
    assert np.abs(logits["a"] - logits["b"]).max() > 1e-3  # each sees with its own parameters


def test_what_is_not_finite_has_no_class(small):
    _, _, data = small
    judges = classifiers.build(classifiers.Config(network=mlp.Config(hidden=(16,))), data["train"].specs, 2)
    params = judges.init(jax.random.key(0))
    broken = {name: np.full_like(x[:6], np.nan, dtype=float) for name, x in data["validation"].arrays.items()}
    for name in list(broken)[:1]:
        broken[name][3:] = data["validation"].arrays[name][:3]
    classes = {name: classifiers.judged(judges, params, name, x).classes for name, x in broken.items()}
    assert (classes[next(iter(broken))][:3] == -1).all() and (classes[next(iter(broken))][3:] >= 0).all()
    assert coherence.joint(classes) == 0


def test_classifiers_learn_real_data(small):
    _, _, data = small
    config = classifiers.Config(network=mlp.Config(hidden=(16,)))
    judges = classifiers.build(config, data["train"].specs, 2)
    params = judges.init(jax.random.key(0))
    training = fit.Config(num_steps=400, batch_size=64, learning_rate=1e-2)
    batches = [classifiers.as_batch(data[split]) for split in ("train", "validation")]
    params, _ = fit.fit(judges.stage, params, jax.random.key(1), *batches, config=training)
    predicted = classifiers.judged(judges, params, "x2", data["validation"].arrays["x2"]).classes
    exact = linear_gaussian.posterior(linear_gaussian.maps(linear_gaussian.Config()), {"x2": data["validation"].arrays["x2"]})[
        0
    ]
    bayes = ((exact[:, 0] > 0) == data["validation"].labels).mean()  # no classifier does better on average
    accuracy = (predicted == data["validation"].labels).mean()
    assert accuracy > bayes - 5 * np.sqrt(0.25 / len(predicted))


def test_data_without_labels_have_no_classifiers():
    part = source.Source(specs={"a": specs.ModalitySpec(shape=(1,))}, arrays={"a": np.zeros((3, 1))})
    with pytest.raises(ValueError, match="without labels"):
        classifiers.as_batch(part)
