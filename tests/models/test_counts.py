"""Counts as a modality of a model: its loss, its gradients and what it generates."""

import jax
import jax.numpy as jnp
import numpy as np

from jnf_jax import distributions, specs
from jnf_jax.models import mvae
from jnf_jax.networks import mlp

SPECS = {
    "rna": specs.ModalitySpec(shape=(6,), likelihood="negative_binomial", library=40.0),
    "protein": specs.ModalitySpec(shape=(3,), scale=0.5),
}


def test_every_parameter_of_a_model_of_counts_is_moved_and_generated_counts_have_the_library():
    rng = np.random.default_rng(0)
    data = {"rna": rng.poisson(7, (8, 6)).astype(np.uint16), "protein": rng.normal(size=(8, 3))}
    model = mvae.build(mvae.Config(latent_dim=2, network=mlp.Config(hidden=(4,), activation="tanh")), SPECS)
    params = jax.jit(model.init)(jax.random.key(0))
    loss = lambda params: model.stages[0].loss(params, jax.random.key(1), data)[0]
    value, gradients = jax.jit(jax.value_and_grad(loss))(params)
    assert jnp.isfinite(value)
    for path, gradient in jax.tree_util.tree_leaves_with_path(gradients):
        assert 0 < float(jnp.abs(gradient).max()) < jnp.inf, jax.tree_util.keystr(path)
    generated = distributions.mean(SPECS["rna"], model.decode(params, jnp.ones((5, 2)))["rna"])
    np.testing.assert_allclose(generated.sum(1), 40, rtol=1e-6)
