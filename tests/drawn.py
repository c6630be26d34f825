"""A model to draw pictures of, without training: z is a plane, and modalities of every form decode from it."""

import jax
import jax.numpy as jnp
import numpy as np

from jnf_jax import specs
from jnf_jax.data import source
from jnf_jax.models import base

SPECS = {
    "digit": specs.ModalitySpec(shape=(16, 16), support=(0.0, 1.0)),
    "blood": specs.ModalitySpec(shape=(3,), unit="mmol/l"),
    "tissue": specs.ModalitySpec(shape=(1,), likelihood="categorical", num_categories=2, labels=("liver", "kidney")),
}


def model(modalities=SPECS, prior_log_density=None):
    """Returns the model; its posterior is a standard normal shifted by how many modalities are observed."""

    def decode(params, z):
        del params
        weights = lambda name: np.random.default_rng(len(name)).normal(size=(2, *modalities[name].parameter_shape))
        raw = {name: jnp.tensordot(z, jnp.asarray(weights(name)), 1) for name in modalities}
        return {name: jax.nn.sigmoid(x) if modalities[name].support else x for name, x in raw.items()}

    def sample_posterior(params, key, observed, *, num_samples):
        del params
        num = len(next(iter(observed.values())))
        return len(observed) + jax.random.normal(key, (num_samples, num, 2)), None

    return base.Model(
        specs=modalities,
        latent_dim=2,
        init=lambda key: {},
        stages=(),
        sample_prior=lambda params, key, *, num_samples: 5 + jax.random.normal(key, (num_samples, 2)),
        sample_posterior=sample_posterior,
        posterior_log_density=None,
        decode=decode,
        log_likelihood=None,
        elbo=None,
        prior_log_density=prior_log_density,
    )


def data(modalities=SPECS, num=30):
    """Returns test examples of three classes."""
    rng = np.random.default_rng(0)
    wide = lambda spec: 8 * rng.normal(size=(num, *spec.shape))  # as far as draws of the prior go
    real = lambda spec: (rng.random((num, *spec.shape)) if spec.support else wide(spec)).astype(np.float32)
    draw = lambda spec: rng.integers(0, spec.num_categories, (num, *spec.shape)) if spec.num_categories else real(spec)
    arrays = {name: draw(spec) for name, spec in modalities.items()}
    return source.Source(specs=modalities, arrays=arrays, labels=np.arange(num) % 3)
