"""Product of experts over the observed modalities.

An expert q_j(z | x_j) = N(f_j(z); mu_j(x_j), sigma_j(x_j)^2) |det df_j/dz| has learnt codes z. Averaged over the data it is the marginal of
these codes. A product must hold that marginal once, and every expert brings it along. Views that are independent given z obey

    q(z | x_S)  ~  m(z) prod_{j in S} q_j(z | x_j) / m_j(z),

m a density of the codes, m_j what the expert j takes it for. All rules but the published one take one Gaussian in the expert's own base space,

    m_j(z) = N(f_j(z); c_j, C_j) |det df_j/dz|.

The Jacobians cancel in q_j / m_j. C_j is no narrower than any sigma_j^2, so the ratio is bounded, or grows exponentially
at most where the two are as wide. What the rules take for m:

    `marginal`   a density fitted to the codes (`marginals`). It keeps clusters apart, and is too narrow within them: experts say that again.
    `geometric`  the geometric mean of the m_j observed. It is broad and has no clusters.
    `pooled`     the geometric mean of these two. It scores best.
    `prior`      m = m_j = N(0, I): the published product, prod_j q_j(z | x_j) / p(z)^(|S| - 1). It is right where codes follow the prior,
                 and improper where experts are too wide. The others are proper: m is made of (roots of) normalised densities with the
                 tails of Gaussians, which no ratio outgrows.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from jnf_jax import compiling, distributions, types
from jnf_jax.flows import base as flows
from jnf_jax.marginals import base as marginals
from jnf_jax.posteriors import flow as expert
from jnf_jax.posteriors import growth, hmc, smc

Kind = Literal["pooled", "marginal", "geometric", "prior"]

_FITTED = {"marginal": 1.0, "pooled": 0.5, "geometric": 0.0}  # the fitted density's power in m
_STEEPNESS = 20.0  # of the wall, per squared prior standard deviation
# in full precision on accelerators too: x^T P x is much smaller than the terms that it sums
_matmul = functools.partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)
_MOST_UNROLLED = (
    4  # experts; of eight, a leapfrog step took 1.3 times as long and its compilation 2.7 times as long written out (2 cores)
)


@dataclasses.dataclass(frozen=True)
class Rule:
    """How experts are multiplied.

    Attributes:
      kind: which of the rules above.
      flow: the bijection that all experts share in form.
      marginal: the density fitted to the codes, for the rules `marginal` and `pooled`.
    """

    kind: Kind
    flow: flows.Flow
    marginal: marginals.Marginal | None = None


class Divisors(NamedTuple):
    """The Gaussians N(c_j, C_j) of base spaces, C_j^-1 = W_j W_j^T."""

    loc: types.Array  # [.., D] c_j
    whitening: types.Array  # [.., D, D] W_j
    widest: types.Array  # [.., D] no expert's scale is larger, in a product


class Shared(NamedTuple):
    """What a product needs beside the observation; leaves of the observed modalities are stacked `[|S|, ..]`."""

    flows: types.Params
    divisors: Divisors | None = None  # of all rules but `prior`
    marginal: types.Params = None  # of the fitted density, where the rule has one


def power(num_experts: int) -> int:
    """Returns how often the published product is divided by the prior.

    Raises:
      ValueError: if there is no expert.
    """
    if num_experts < 1:
        raise ValueError(f"Expected at least one expert, got {num_experts}.")
    return num_experts - 1


def log_density(rule: Rule, shared: Shared, base: types.Gaussian, z: types.Array) -> types.Array:
    """Returns the log density `[]` of one point `[D]`, up to a constant; of one expert, its own log density.

    Args:
      rule: how experts are multiplied.
      shared: of the observed modalities.
      base: mu_j(x_j) and sigma_j(x_j), `[|S|, D]` each.
      z: `[D]`.
    """
    u, _, rest = _of_point(rule, shared, z, base.loc.shape[0])
    return distributions.gaussian_log_prob(_bounded(rule, shared, base), u).sum(-1) + rest


def log_densities(rule: Rule, shared: Shared, base: types.Gaussian, z: types.Array) -> types.Array:
    """Returns `log_density` `[.., B]` at z `[.., 1 or B, D]` for base Gaussians `[B, |S|, D]`.

    One point for all observations passes through the flows once.
    """
    points = z.reshape(-1, z.shape[-1])
    u, _, rest = jax.vmap(lambda z: _of_point(rule, shared, z, base.loc.shape[1]))(points)
    u = u.reshape(*z.shape[:-1], *u.shape[1:])
    return distributions.gaussian_log_prob(_bounded(rule, shared, base), u).sum(-1) + rest.reshape(z.shape[:-1])


def _of_point(rule: Rule, shared: Shared, z: types.Array, num: int) -> tuple[types.Array, types.Array, types.Array]:
    """Returns f_j(z) `[|S|, D]`, log |det df_j/dz| `[|S|]` and the part of the log density `[]` that no observation changes."""
    u, log_det = _each(lambda flow: rule.flow.forward(flow, z), shared.flows, num=num)
    if rule.kind == "prior" or num == 1:
        return u, log_det, log_det.sum() - power(num) * distributions.standard_normal_log_prob(z)
    divisors = _each(divisor_log_prob, shared.divisors, u, num=num).sum()
    weight = _FITTED[rule.kind]
    marginal = (1 - weight) * (divisors + log_det.sum()) / num
    if weight:
        marginal += weight * rule.marginal.log_density(shared.marginal, z)
    return u, log_det, marginal - divisors


def _each(function: Callable, *stacked: Any, num: int) -> Any:
    """Returns what a function makes of each of `num` experts, stacked.

    A few experts are written out one by one, which runs a little faster. Many would take XLA ever longer to compile, and slow it down.
    """
    if num > _MOST_UNROLLED:
        return jax.vmap(function, axis_size=num)(*stacked)  # a flow may have no parameters, whose leaves would tell the size
    each = [function(*jax.tree.map(lambda leaf: leaf[i], stacked)) for i in range(num)]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)


def _bounded(rule: Rule, shared: Shared, base: types.Gaussian) -> types.Gaussian:
    """Returns base Gaussians no wider than their divisors, which changes those alone that are wider than any that was fitted to."""
    if rule.kind == "prior" or base.loc.shape[-2] == 1:
        return base
    return base._replace(scale=jnp.minimum(base.scale, shared.divisors.widest))


def divisor_log_prob(divisor: Divisors, u: types.Array) -> types.Array:
    """Returns log N(u; c_j, C_j) `[]` of one point `[D]` of a base space."""
    log_scale = jnp.log(jnp.diagonal(divisor.whitening)).sum()
    square = _square(u - divisor.loc, _matmul(divisor.whitening, divisor.whitening.T))
    return log_scale - 0.5 * square - 0.5 * len(u) * math.log(2 * math.pi)


@jax.custom_jvp
def _square(x: types.Array, matrix: types.Array) -> types.Array:
    """Returns x^T P x `[]` for a symmetric P `[D, D]`; its value and its gradient 2 P x share one product."""
    return _matmul(x, _matmul(matrix, x))


@functools.partial(_square.defjvp, symbolic_zeros=True)
def _square_jvp(primals, tangents):
    x, matrix = primals
    dx, dmatrix = tangents
    absent = lambda tangent: isinstance(tangent, jax.custom_derivatives.SymbolicZero)
    product = _matmul(matrix, x)
    change = jnp.zeros((), x.dtype) if absent(dx) else 2 * _matmul(dx, product)
    return _matmul(x, product), change if absent(dmatrix) else change + _matmul(x, _matmul(dmatrix, x))


def sample(
    rule: Rule,
    shared: Shared,
    key: types.Array,
    base: types.Gaussian,
    *,
    num_samples: int,
    config: hmc.Config,
) -> tuple[types.Array, types.Info]:
    """Returns draws of the product by Hamiltonian Monte Carlo, confined by `wall` unless `config.outside` is None.

    Args:
      rule: how experts are multiplied.
      shared: of the observed modalities.
      key: random key.
      base: loc, scale `[B, |S|, D]`.
      num_samples: S.
      config: of the chains.

    Returns:
      z `[S, B, D]` and its Info. `info.improper` is set where the density is not finite, and by the rule `prior` also where it grows along
      a ray; the other rules are proper by construction.
    """
    pilot_key, chain_key = jax.random.split(key)
    num_chains = config.chains_for(num_samples)
    pilots = _pilot_draws(
        rule.flow, shared.flows, pilot_key, base, max(num_chains, config.num_pilots), invert=config.start == "expert"
    )
    starts = _starts(pilots, num_chains)
    variance = _product_variance(pilots)

    density = jax.jit(functools.partial(log_density, rule))  # traced once, wherever it is used

    def target(base, z):
        return density(shared, base, z)

    def confined(base, z):
        return target(base, z) - wall(z, config.outside)

    draws, last, info = hmc.sample(confined, chain_key, base, starts, variance, num_samples=num_samples, config=config)
    if rule.kind != "prior":
        return draws, info._replace(improper=~jnp.isfinite(last.logdensity).all(1))

    improper = growth.grow_outward(target, base, starts, last.position)
    return draws, info._replace(improper=improper)


def log_normaliser(
    rule: Rule,
    shared: Shared,
    key: types.Array,
    base: types.Gaussian,
    *,
    outside: float | None,
    config: smc.Config,
    batch_size: int = 25,
) -> types.Array:
    """Returns estimates `[B]` of the log of what the product's density, confined by `wall`, integrates to.

    Args:
      rule: how experts are multiplied.
      shared: of the observed modalities.
      key: random key.
      base: loc, scale `[B, |S|, D]`.
      outside: the wall's.
      config: of the sequential Monte Carlo, which starts at exact draws of the experts in turn.
      batch_size: observations at once, at most.
    """
    num = base.loc.shape[1]

    @jax.jit  # traced once, wherever it is used
    def mixture_and_product(shared, base, z):
        u, log_det, rest = _of_point(rule, shared, z, num)
        experts = distributions.gaussian_log_prob(base, u) + log_det
        target = distributions.gaussian_log_prob(_bounded(rule, shared, base), u).sum() + rest - wall(z, outside)
        return jax.nn.logsumexp(experts) - math.log(num), target

    def one(xs):
        key, base = xs
        start_key, key = jax.random.split(key)
        densities = functools.partial(mixture_and_product, shared, base)
        each = -(-config.num_particles // num)  # of an expert, in a pass
        alone = jax.tree.map(lambda leaf: leaf[None], base)
        pilots = _pilot_draws(rule.flow, shared.flows, start_key, alone, smc.NUM_PASSES * each, invert=True)[0]
        starts = starts_of_passes(jax.random.fold_in(start_key, num), pilots, num_particles=config.num_particles)
        return smc.log_normaliser(densities, key, starts, config=config)[0]

    return compiling.in_batches(one, (jax.random.split(key, len(base.loc)), base), most=batch_size)


def starts_of_passes(key: types.Array, pilots: types.Array, *, num_particles: int) -> types.Array:
    """Returns the particles `[passes * N, D]` that the passes of sequential Monte Carlo start from: draws of the experts in turn.

    Where a pass has not as many of every expert, a random one comes first: each particle is then a draw of the equal mixture, which an unbiased
    estimate needs.

    Args:
      key: random key.
      pilots: draws of every expert `[|S|, passes * ceil(N / |S|), D]`; each is taken once at most.
      num_particles: N.
    """
    num, turns = len(pilots), jnp.arange(num_particles)
    each = pilots.shape[1] // smc.NUM_PASSES
    first = jnp.zeros(smc.NUM_PASSES, int)
    if num_particles % num:
        first = jax.random.randint(key, first.shape, 0, num)
    return jnp.concatenate([pilots[(first[p] + turns) % num, p * each + turns // num] for p in range(smc.NUM_PASSES)])


def wall(z: types.Array, outside: float | None) -> types.Array:
    """Returns a penalty `[..]` at z `[.., D]`: nothing inside the ball that holds all but `outside` of the prior's mass, steep beyond it.

    Experts are learnt from codes, and as long as `outside` is small codes lie in that ball. Beyond it a flow extrapolates, and the published
    rule's division by the prior's tail turns any excess into modes that no data stand behind. A larger `outside` cuts codes off as well.
    """
    if outside is None:
        return jnp.zeros(z.shape[:-1], z.dtype)
    import scipy.special  # imported here, for no other product needs it

    radius = math.sqrt(scipy.special.chdtri(z.shape[-1], outside))
    excess = jnp.sqrt(jnp.maximum((z * z).sum(-1), radius**2)) - radius  # a norm has no gradient at 0
    return _STEEPNESS * excess**2


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
