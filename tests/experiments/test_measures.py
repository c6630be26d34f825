import types

import jax
import numpy as np
import pytest

from experiments import measures
from jnf_jax import specs
from jnf_jax.marginals import flow


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
