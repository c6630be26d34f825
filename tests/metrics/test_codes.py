import jax
import numpy as np
import pytest

from jnf_jax import configs, specs
from jnf_jax.metrics import codes
from jnf_jax.models import mhvae, mmvae_plus, mvae
from jnf_jax.networks import mlp

SHARED = {"shared": np.arange(12.0).reshape(3, 4), "private": {"a": np.ones((3, 1)), "b": np.zeros((3, 2))}}


def test_codes_pass_through_one_array_and_back():
    array = codes.as_array(SHARED)
    assert array.shape == (3, 7)
    again = codes.from_array(array, SHARED)
    for name in ("a", "b"):
        np.testing.assert_array_equal(again["private"][name], SHARED["private"][name])
    np.testing.assert_array_equal(again["shared"], SHARED["shared"])
    np.testing.assert_array_equal(codes.from_array(array, array), array)


def test_parts_are_taken_and_put_together():
    assert codes.length(SHARED) == 3
    parts = [codes.take(SHARED, np.s_[:1]), codes.take(SHARED, np.s_[1:])]
    np.testing.assert_array_equal(codes.as_array(codes.concatenated(parts)), codes.as_array(SHARED))


@pytest.mark.parametrize(("module", "one"), [(mvae, True), (mmvae_plus, False), (mhvae, False)])
def test_models_with_several_codes_are_told(module, one):
    config = module.Config(network=mlp.Config(hidden=(4,)))
    model = configs.build(config, {name: specs.ModalitySpec(shape=(3,)) for name in "ab"})
    assert codes.is_one(model, jax.eval_shape(model.init, jax.random.key(0))) == one
