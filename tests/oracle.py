"""Exact posteriors to measure samplers against, and the test that measures.

A linear-Gaussian model has p(z | x_j) = N(m_j, P_j^-1) with full covariances. Seen through the linear flow u = R_j z, R_j^T R_j = P_j, that is
a Gaussian of unit scale: exact experts in the very form that the product of experts takes.
"""

import functools
from typing import NamedTuple

import blackjax
import jax
import jax.numpy as jnp
import numpy as np

from jnf_jax import types
from jnf_jax.data import linear_gaussian
from jnf_jax.flows import base as flows
from jnf_jax.posteriors import hmc, product


class Exact(NamedTuple):
    """Exact experts of some observations."""

    flow_params: jax.Array  # R_j [M, D, D]
    base: types.Gaussian  # [B, M, D]


def linear_flow() -> flows.Flow:
    """Returns u = R z."""

    def forward(matrix, z):
        return matrix @ z, jnp.linalg.slogdet(matrix)[1]

    def inverse(matrix, u):
        return jnp.linalg.solve(matrix, u), -jnp.linalg.slogdet(matrix)[1]

    return flows.Flow(init=lambda key: None, forward=forward, inverse=inverse)


def exact_experts(maps: dict[str, linear_gaussian.LinearMap], observed: dict[str, np.ndarray]) -> Exact:
    """Returns the exact experts of the observed modalities."""
    matrices, locs = [], []
    for name, x in observed.items():
        mean, covariance = linear_gaussian.posterior(maps, {name: x})
        matrix = np.linalg.cholesky(np.linalg.inv(covariance)).T
        matrices.append(matrix)
        locs.append(mean @ matrix.T)
    loc = jnp.stack([jnp.asarray(l) for l in locs], axis=1)
    return Exact(jnp.asarray(np.stack(matrices)), types.Gaussian(loc, jnp.ones_like(loc)))


def sample_product(exact: Exact, key, *, num_samples: int, config: hmc.Config):
    """Returns what the product sampler makes of exact experts; compiled once for each number of them."""
    return _compiled(num_samples, config, product.power)(exact.flow_params, key, exact.base)


@functools.cache
def _compiled(num_samples: int, config: hmc.Config, power):
    del power  # read while tracing: a test that replaces it needs a trace of its own
    flow = linear_flow()
    return jax.jit(lambda params, key, base: product.sample(flow, params, key, base, num_samples=num_samples, config=config))


_ess = jax.jit(functools.partial(blackjax.ess_bulk, chain_axis=1, sample_axis=0))


def check_moments(draws, num_chains: int, mean, covariance, *, least_ess: float = 400.0, standard_errors: float = 5.0) -> None:
    """Asserts that the draws of each observation have the exact mean and covariance.

    Standard errors are those of the draws' effective number: sqrt(c_ii / ESS) of a mean and sqrt((c_ii c_jj + c_ij^2) / ESS) of a covariance.
    Chains that have not moved enough to be judged fail too.

    Args:
      draws: `[S, B, D]` of the sampler, S divisible by `num_chains`.
      num_chains: C.
      mean: `[B, D]` exact.
      covariance: `[D, D]` exact.
      least_ess: the gate.
      standard_errors: the tolerance.
    """
    draws = np.asarray(draws)
    mean, covariance = np.asarray(mean), np.asarray(covariance)
    chains = draws[::-1].reshape(-1, num_chains, *draws.shape[1:])  # [N, C, B, D]
    centred = chains - mean
    products = centred[..., :, None] * centred[..., None, :]  # [N, C, B, D, D]
    variance = np.diagonal(covariance)
    spread = variance[:, None] * variance[None, :] + covariance**2
    ess_mean, ess_products = (np.asarray(_ess(jnp.asarray(values))) for values in (centred, products))
    assert ess_mean.min() > least_ess, f"ESS {ess_mean.min():.0f} of a mean"
    assert ess_products.min() > least_ess, f"ESS {ess_products.min():.0f} of a covariance"
    mean_error = np.abs(centred.mean((0, 1))) / np.sqrt(variance / ess_mean)
    covariance_error = np.abs(products.mean((0, 1)) - covariance) / np.sqrt(spread / ess_products)
    assert mean_error.max() < standard_errors, f"a mean {mean_error.max():.1f} standard errors off"
    assert covariance_error.max() < standard_errors, f"a covariance {covariance_error.max():.1f} standard errors off"
