"""Exact posteriors to measure samplers against, and the test that measures.

A linear-Gaussian model has p(z | x_j) = N(m_j, P_j^-1) with full covariances. Seen through the linear flow u = R_j z, R_j^T R_j = P_j, that is
a Gaussian of unit scale: exact experts in the very form that the product of experts takes. Codes z ~ N(c, C) are R_j z ~ N(R_j c, R_j C R_j^T) in
the expert's base space: exact divisors.
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
from jnf_jax.marginals import mixture
from jnf_jax.posteriors import hmc, product


class Exact(NamedTuple):
    """Exact experts of some observations."""

    shared: product.Shared  # R_j [M, D, D], exact divisors, the codes' Gaussian
    base: types.Gaussian  # [B, M, D]
    mean: np.ndarray  # [B, D] of the exact p(z | x_S)
    covariance: np.ndarray  # [D, D]


class Codes(NamedTuple):
    """What codes follow: N(c, C)."""

    mean: np.ndarray  # [D]
    covariance: np.ndarray  # [D, D]


def standard(dim: int) -> Codes:
    """Returns codes that follow the prior."""
    return Codes(np.zeros(dim), np.eye(dim))


ROTATION = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
MARGINAL = mixture.build(mixture.Config(num_components=(1,)), 1)  # its density takes its dimension from its parameters


def linear_flow() -> flows.Flow:
    """Returns u = R z."""

    def forward(matrix, z):
        return matrix @ z, jnp.linalg.slogdet(matrix)[1]

    def inverse(matrix, u):
        return jnp.linalg.solve(matrix, u), -jnp.linalg.slogdet(matrix)[1]

    return flows.Flow(init=lambda key: None, forward=forward, inverse=inverse)


def exact_experts(
    maps: dict[str, linear_gaussian.LinearMap], observed: dict[str, np.ndarray], codes: Codes | None = None
) -> Exact:
    """Returns the exact experts of the observed modalities where z ~ N(c, C), the prior if not given, and their exact product."""
    codes = codes or standard(len(next(iter(maps.values())).weight.T))
    prior = np.linalg.inv(codes.covariance)

    def posterior(part):
        mean, covariance = linear_gaussian.posterior(
            maps, part
        )  # under N(0, I): precision and precision x mean gain the prior's
        precision = np.linalg.inv(covariance) + prior - np.eye(len(prior))
        return (mean @ np.linalg.inv(covariance) + codes.mean @ prior) @ np.linalg.inv(precision), precision

    matrices, locs = [], []
    for name, x in observed.items():
        mean, precision = posterior({name: x})
        matrices.append(np.linalg.cholesky(precision).T)
        locs.append(mean @ matrices[-1].T)
    whitenings = [np.linalg.cholesky(np.linalg.inv(r @ codes.covariance @ r.T)) for r in matrices]
    divisors = product.Divisors(
        loc=jnp.stack([jnp.asarray(r @ codes.mean) for r in matrices]),
        whitening=jnp.stack([jnp.asarray(w) for w in whitenings]),
        widest=jnp.ones((len(matrices), len(prior))),
    )
    upper = np.linalg.inv(np.linalg.cholesky(codes.covariance)).T  # C^-1 = W W^T, W upper triangular
    marginal = {"log_weights": jnp.zeros(1), "loc": jnp.asarray(codes.mean[None]), "whitening": jnp.asarray(upper[None])}
    loc = jnp.stack([jnp.asarray(l) for l in locs], axis=1)
    mean, precision = posterior(observed)
    shared = product.Shared(jnp.asarray(np.stack(matrices)), divisors, marginal)
    return Exact(shared, types.Gaussian(loc, jnp.ones_like(loc)), mean, np.linalg.inv(precision))


def rule(kind: product.Kind, marginal=MARGINAL) -> product.Rule:
    """Returns a rule for exact experts."""
    return product.Rule(kind=kind, flow=linear_flow(), marginal=marginal)


def sample_product(exact: Exact, key, *, num_samples: int, config: hmc.Config, kind: product.Kind = "prior", marginal=MARGINAL):
    """Returns what the product sampler makes of exact experts; compiled once for each number of them."""
    return _compiled(num_samples, config, kind, marginal, product.power)(exact.shared, key, exact.base)


@functools.cache
def _compiled(num_samples: int, config: hmc.Config, kind: product.Kind, marginal, power):
    del power  # read while tracing: a test that replaces it needs a trace of its own
    how = rule(kind, marginal)
    return jax.jit(lambda shared, key, base: product.sample(how, shared, key, base, num_samples=num_samples, config=config))


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
