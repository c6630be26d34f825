"""A decoder that learns the noise of every value finds it, and intervals of predictions then hold as many measurements as they say."""

import jax
import numpy as np

from jnf_jax import ModalitySpec, distributions
from jnf_jax.data import arrays
from jnf_jax.likelihoods import heteroscedastic
from jnf_jax.models import jnf
from jnf_jax.networks import mlp
from jnf_jax.training import fit, stages

NOISE = np.asarray([0.1, 0.2, 0.4, 0.8])


def measurements(num=2_000):
    """Values of unit variance with the noise above, and others of which the causes can be read off."""
    rng = np.random.default_rng(0)
    causes = rng.normal(size=(num, 2))
    first, second = (
        causes @ (weights / np.linalg.norm(weights, axis=0)) for weights in (rng.normal(size=(2, 4)), rng.normal(size=(2, 8)))
    )
    return {"blood": first + NOISE * rng.normal(size=first.shape), "scan": second + 0.2 * rng.normal(size=second.shape)}


def test_the_noise_of_each_value_is_learnt():
    specs = {
        "blood": ModalitySpec(shape=(4,), scale=0.5, likelihood=heteroscedastic.Config()),
        "scan": ModalitySpec(shape=(8,), scale=0.2),
    }
    data = arrays.splits(specs, measurements())
    model = jnf.build(jnf.Config(latent_dim=2, network=mlp.Config(hidden=(32,))), specs)
    brief = fit.Config(num_steps=1_000, learning_rate=3e-3)
    with jax.enable_x64(False):
        params, _ = stages.train(model, jax.random.key(0), data, settings={"joint": brief, "experts": brief})
        test = data["test"].arrays
        z, _ = model.sample_posterior(params, jax.random.key(1), {"scan": test["scan"]}, num_samples=100)
        parameters = model.decode(params, z)["blood"]
        draws = np.asarray(distributions.sample(specs["blood"], jax.random.key(2), parameters))
    np.testing.assert_allclose(
        np.exp(parameters[..., 1]).mean((0, 1)), NOISE, rtol=0.25
    )  # a few percent of chance, and a tenth that the posterior takes for noise
    low, high = np.quantile(draws, [0.05, 0.95], axis=0)
    held = ((test["blood"] > low) & (test["blood"] < high)).mean(0)
    assert (np.abs(held - 0.9) < 0.1).all(), held  # 5 standard errors of 200 values
