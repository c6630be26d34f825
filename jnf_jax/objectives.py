"""Terms of objectives, per example and of no particular model."""

import jax
import jax.numpy as jnp

from jnf_jax import distributions, types
from jnf_jax import specs as specs_lib


def rescaling(specs: specs_lib.Specs, *, enabled: bool) -> dict[str, float]:
    """Returns lambda_j = max_k dim(x_k) / dim(x_j), or 1 for every modality where it is not enabled."""
    largest = max(spec.size for spec in specs.values())
    return {name: largest / spec.size if enabled else 1.0 for name, spec in specs.items()}


def log_likelihoods(specs: specs_lib.Specs, parameters: types.Batch, observed: types.Batch) -> types.Batch:
    """Returns log p(x_j | z) of every observed modality, `[..]` each; `observed` is canonical."""
    return {name: distributions.log_likelihood(specs[name], parameters[name], x) for name, x in observed.items()}


def importance_log_likelihood(log_weights: types.Array) -> types.Array:
    """Returns log mean exp of importance weights `[K, B]` over K (Burda et al., 2016): a lower bound of log p(x) in expectation."""
    return jax.nn.logsumexp(log_weights, axis=0) - jnp.log(log_weights.shape[0])
