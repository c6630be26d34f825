"""What is compared, and how it is summed up."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import direct, product_gap
from jnf_jax import specs
from jnf_jax.flows import identity
from jnf_jax.models import jnf
from jnf_jax.networks import mlp

SMALL = {"latent_dim": 2, "network": mlp.Config(hidden=(4,)), "joint_hidden": (4,), "flow": identity.Config()}


def test_scores_gaps_and_shares_of_known_values():
    found = {
        ("a", "b"): {"score": [1.0, 2.0, 3.0, 4.0], "radius_ratio": 1.0, "two_sample_accuracy": 0.5, "rhat": [1.0, 1.005, 1.02, 1.0],
                     "coherence": {"c": 0.5}, "frechet": {"c": {"distance": 7.0}}, "diversity": {"c": 0.4}},
        ("a", "c"): {"score": [3.0, 4.0, 5.0, 6.0], "radius_ratio": 2.0, "two_sample_accuracy": 0.7, "rhat": [1.0, 1.0, 1.0, 1.0],
                     "coherence": {"b": 1.0}, "frechet": {"b": {"distance": 9.0}}, "diversity": {"b": 0.6}},
    }  # fmt: skip
    shared = types.SimpleNamespace(direct_score={("a", "b"): np.asarray([2.0, 3.0, 4.0, 9.0])})
    result = product_gap.summary(found, shared)
    assert result["score"]["by_size"]["2"]["values"] == [2, 3, 4, 5]
    assert result["score"]["by_size"]["2"]["standard_error"] == pytest.approx(np.sqrt(5 / 3) / 2)
    gap = result["gap"]["by_size"]["2"]
    assert gap["values"] == [1, 1, 1, 5]  # nats that the direct expert is ahead
    assert gap["mean"] == 2
    assert gap["standard_error"] == pytest.approx(1.0)
    assert result["radius_ratio"]["by_size"] == {"2": 1.5}
    assert result["two_sample_accuracy"]["by_size"] == {"2": pytest.approx(0.6)}
    assert result["rhat_share_below"] == {"threshold": 1.01, "mean": 0.875, "smallest": 0.75, "largest_rhat": 1.02}
    assert result["coherence"]["by_size"] == {"2": 0.75}
    assert result["frechet"]["by_size"] == {"2": 8}
    assert result["diversity"] == pytest.approx(0.5)


def test_every_arm_is_a_product_of_its_own():
    modalities = {name: specs.ModalitySpec(shape=(2,)) for name in "abc"}
    shared = types.SimpleNamespace(data={"test": types.SimpleNamespace(specs=modalities)})
    config = types.SimpleNamespace(model=jnf.Config(**SMALL))
    built = {arm: product_gap.build_arm(config, arm, shared).config for arm in product_gap.ARMS}
    settings = {arm: (c.product_rule, c.sampler.outside) for arm, c in built.items() if arm != "direct"}
    assert len(set(settings.values())) == len(settings)
    assert settings["published"] == ("prior", jnf.Config().sampler.outside)
    assert settings["default"] == (jnf.Config().product_rule, jnf.Config().sampler.outside)
    longer = product_gap.build_arm(config, "default", shared, {"num_warmup": 77}).config
    assert longer.sampler.num_warmup == 77


def test_a_direct_expert_sees_every_modality_of_its_subset_and_no_other():
    modalities = {name: specs.ModalitySpec(shape=(2,)) for name in "abc"}
    config = jnf.Config(**SMALL)
    trained = jax.jit(jnf.build(config, modalities).init)(jax.random.key(0))
    model = direct.build(config, modalities, trained, ("a", "c"))
    params = jax.jit(model.init)(jax.random.key(1)) | {"joint": trained["joint"], "decoders": trained["decoders"]}
    z = jnp.zeros((1, 3, 2))
    density = lambda **x: np.asarray(model.posterior_log_density(params, x, z))
    x = {name: jax.random.normal(jax.random.key(i), (3, 2)) for i, name in enumerate("ac")}
    before = density(**x)
    for name in x:
        assert (density(**x | {name: x[name] + 1}) != before).all()
