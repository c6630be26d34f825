"""Product of experts over the observed modalities.

    log q(z | x_S) = sum_{j in S} log q_j(z | x_j) - (|S| - 1) log p(z) + const

Every expert is a posterior and so holds the prior once; the product must hold it once, not |S| times.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import scipy.stats
from jax.experimental.sparse import linalg

from jnf_jax import distributions, types
from jnf_jax.flows import base as flows
from jnf_jax.posteriors import flow as expert
from jnf_jax.posteriors import hmc

_STEEPNESS = 20.0  # of the wall, per squared prior standard deviation
_RAY_RADII = (20.0, 40.0)  # prior standard deviations: beyond every draw
_RAY_BATCH = 16  # observations whose rays are looked at together
_ALL_DIRECTIONS, _FEW_DIRECTIONS, _LOBPCG_STEPS = 64, 4, 30


class Experts(NamedTuple):
    """The experts of the observed modalities, conditioned on one observation."""

    flows: types.Params  # leaves [|S|, ..], the same for every observation
    base: types.Gaussian  # loc, scale [|S|, D]


def power(num_experts: int) -> int:
    """Returns how often the product is divided by the prior.

    Raises:
      ValueError: if there is no expert.
    """
    if num_experts < 1:
        raise ValueError(f"Expected at least one expert, got {num_experts}.")
    return num_experts - 1


def log_density(flow: flows.Flow, experts: Experts, z: types.Array) -> types.Array:
    """Returns the log density `[]` of one point `[D]`: normalised for one expert, up to a constant for several."""
    num_experts = experts.base.loc.shape[0]
    each = [expert.log_density(flow, *jax.tree.map(lambda leaf: leaf[i], experts), z) for i in range(num_experts)]
    return sum(each) - power(num_experts) * distributions.standard_normal_log_prob(z)


def sample(
    flow: flows.Flow,
    flow_params: types.Params,
    key: types.Array,
    base: types.Gaussian,
    *,
    num_samples: int,
    config: hmc.Config,
) -> tuple[types.Array, types.Info]:
    """Returns draws of the product by Hamiltonian Monte Carlo, confined by `wall` unless `config.outside` is None.

    Args:
      flow: the bijection that all experts share in form.
      flow_params: leaves `[|S|, ..]`.
      key: random key.
      base: loc, scale `[B, |S|, D]`.
      num_samples: S.
      config: of the chains.

    Returns:
      z `[S, B, D]` and its Info; `info.improper` also where the density grows along a ray.
    """
    pilot_key, chain_key = jax.random.split(key)
    num_chains = config.chains_for(num_samples)
    pilots = _pilot_draws(
        flow, flow_params, pilot_key, base, max(num_chains, config.num_pilots), invert=config.start == "expert"
    )
    starts = _starts(pilots, num_chains)
    variance = _product_variance(pilots)

    def target(base, z):
        return log_density(flow, Experts(flow_params, base), z)

    def confined(base, z):
        return target(base, z) - wall(z, config.outside)

    draws, last, info = hmc.sample(confined, chain_key, base, starts, variance, num_samples=num_samples, config=config)

    def grows(chains):
        return grows_outward(lambda z: target(chains[0], z), *chains[1:])

    if base.loc.shape[-1] <= _ALL_DIRECTIONS:
        improper = jax.vmap(grows)((base, starts, last))
    else:  # all rays of all observations at once would not fit
        improper = jax.lax.map(grows, (base, starts, last), batch_size=_RAY_BATCH)
    return draws, info._replace(improper=improper)


def wall(z: types.Array, outside: float | None) -> types.Array:
    """Returns a penalty `[]`: nothing inside the ball that holds all but `outside` of the prior's mass, steep beyond it.

    Experts are learnt from codes, and as long as `outside` is small codes lie in that ball. Beyond it a flow extrapolates, and division by the
    prior's tail turns any excess into modes that no data stand behind. A larger `outside` cuts codes off as well.
    """
    if outside is None:
        return jnp.zeros((), z.dtype)
    radius = math.sqrt(scipy.stats.chi2.isf(outside, z.shape[-1]))
    excess = jnp.sqrt(jnp.maximum(z @ z, radius**2)) - radius  # a norm has no gradient at 0
    return _STEEPNESS * excess**2


def grows_outward(target: types.LogDensity, starts: types.Array, ends: types.Array) -> types.Array:
    """Returns whether the log density grows along some ray far from the prior's mass, as it does where the product is improper.

    The rays leave the chains' mean (from elsewhere they may still approach a narrow product far out) in both directions of every axis
    and of the principal curvatures there (exact for Gaussians), towards each chain's end and along each chain's way: a chain drifts
    where the density does not fall off, whatever its acceptance rate says.

    Args:
      target: log density of one point.
      starts: `[C, D]` first states.
      ends: `[C, D]` last states.

    Returns:
      `[]` bool; true also where the density is not finite.
    """
    dim = ends.shape[-1]
    axes = jnp.eye(dim, dtype=ends.dtype)
    centre = ends.mean(0)
    principal = _principal_directions(target, centre)
    towards = jnp.concatenate([axes, -axes, principal, -principal, _unit(ends - centre), _unit(ends - starts)])
    near, far = (jax.vmap(target)(centre + radius * towards) for radius in _RAY_RADII)
    return ~jnp.all(far < near)


def _principal_directions(target: types.LogDensity, centre: types.Array) -> types.Array:
    """Returns the directions `[K, D]` in which the log density falls off least around a point.

    They are all of the Hessian's up to 64 dimensions; beyond, the first few, found from its products with vectors alone.
    """
    if len(centre) <= _ALL_DIRECTIONS:
        return jnp.linalg.eigh(jnp.nan_to_num(jax.hessian(target)(centre)))[1].T
    gradient = jax.grad(target)
    along = jax.vmap(lambda vector: jnp.nan_to_num(jax.jvp(gradient, (centre,), (vector,))[1]), in_axes=1, out_axes=1)
    start = jax.random.normal(jax.random.key(0), (len(centre), _FEW_DIRECTIONS), centre.dtype)
    return linalg.lobpcg_standard(along, start, m=_LOBPCG_STEPS)[1].T


def _unit(vectors: types.Array) -> types.Array:
    return vectors / jnp.maximum(jnp.linalg.norm(vectors, axis=-1, keepdims=True), 1e-6)


def _pilot_draws(flow: flows.Flow, flow_params, key, base: types.Gaussian, num: int, *, invert: bool) -> types.Array:
    """Returns draws `[B, |S|, num, D]` of every expert, or of their base Gaussians (as the reference starts its chains)."""

    def one(params, base, key):
        if not invert:
            return distributions.gaussian_sample(key, base)
        return expert.sample(flow, params, key, base)

    draw = jax.vmap(one, in_axes=(None, None, 0))
    draw = jax.vmap(draw, in_axes=(0, 0, 0))
    draw = jax.vmap(draw, in_axes=(None, 0, 0))
    return draw(flow_params, base, jax.random.split(key, (*base.loc.shape[:2], num)))


def _starts(pilots: types.Array, num_chains: int) -> types.Array:
    """Returns `[B, C, D]`: the experts' draws in turn."""
    turns = jnp.arange(num_chains)
    return pilots[:, turns % pilots.shape[1], turns]


def _product_variance(pilots: types.Array) -> types.Array:
    """Returns the diagonal variance `[B, D]` of the product of the Gaussians that match the experts' draws."""
    num = pilots.shape[2]
    variance = pilots.var(axis=2, ddof=1)
    # With few draws a precision is overestimated; the prior's variance counts as a few more of them.
    variance = (num * variance + 4.0) / (num + 4.0)
    precision = (1 / variance).sum(axis=1) - power(pilots.shape[1])
    return 1 / jnp.maximum(precision, 0.25)
