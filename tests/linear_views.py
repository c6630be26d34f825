"""Three modalities of linear networks and Gaussian noise, some of them missing, and a test of a mean: what exact calculations are made for."""

import functools

import jax
import numpy as np

from jnf_jax import specs
from jnf_jax.networks import mlp

SCALE, NUM = 0.8, 3
MODALITIES = {name: specs.ModalitySpec(shape=(dim,), scale=SCALE) for name, dim in zip("abc", (2, 3, 2), strict=True)}
NAMES = tuple(MODALITIES)
LINEAR = {"latent_dim": 2, "network": mlp.Config(hidden=())}
MASKS = {  # the last example has all
    "a": np.asarray([True, False, True]),
    "b": np.asarray([False, True, True]),
    "c": np.asarray([True, True, True]),
}


@functools.cache
def data():
    rng = np.random.default_rng(0)
    return {name: rng.normal(size=(NUM, *spec.shape)) for name, spec in MODALITIES.items()}


def given(subset):
    return {name: data()[name] for name in subset}


def many(function, num, seed=0):
    """`function(key)` at so many keys, stacked."""
    return np.asarray(jax.jit(jax.vmap(function))(jax.random.split(jax.random.key(seed), num)))


def check_mean(values, expected):
    """The mean over the first axis is within 5 standard errors of what it should be."""
    error = values.mean(0) - expected
    assert (np.abs(error) < 5 * values.std(0, ddof=1) / np.sqrt(len(values)) + 1e-10).all(), error
