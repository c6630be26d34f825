"""One expert: a Gaussian that depends on the observation, seen through a flow that does not.

log q_j(z | x_j) = log N(f_j(z); mu_j(x_j), diag sigma_j(x_j)^2) + log |det d f_j / d z|
"""

import functools

import jax

from jnf_jax import distributions, types
from jnf_jax.flows import base as flows


def log_density(flow: flows.Flow, params: types.Params, base: types.Gaussian, z: types.Array) -> types.Array:
    """Returns log q_j(z | x_j) `[]` of one point `[D]`; `base` holds mu_j(x_j) and sigma_j(x_j), `[D]` each."""
    u, log_det = flow.forward(params, z)
    return distributions.gaussian_log_prob(base, u) + log_det


def log_densities(flow: flows.Flow, params: types.Params, base: types.Gaussian, z: types.Array) -> types.Array:
    """Returns log q_j(z | x_j) `[.., B]` at z `[.., 1 or B, D]`; `base` holds mu_j(x_j) and sigma_j(x_j), `[B, D]` each.

    The flow does not depend on x_j: one point for all observations passes through it once.
    """
    u, log_det = jax.vmap(functools.partial(flow.forward, params))(z.reshape(-1, z.shape[-1]))
    return distributions.gaussian_log_prob(base, u.reshape(z.shape)) + log_det.reshape(z.shape[:-1])


def sample(flow: flows.Flow, params: types.Params, key: types.Array, base: types.Gaussian) -> types.Array:
    """Returns one exact draw `[D]`."""
    return flow.inverse(params, distributions.gaussian_sample(key, base))[0]


def sample_many(
    flow: flows.Flow, params: types.Params, key: types.Array, base: types.Gaussian, *, num_samples: int
) -> types.Array:
    """Returns exact draws `[S, B, D]` for base Gaussians `[B, D]`."""
    keys = jax.random.split(key, (num_samples, base.loc.shape[0]))
    one = lambda key, base: sample(flow, params, key, base)
    return jax.vmap(jax.vmap(one), in_axes=(0, None))(keys, base)
