"""The inference gap: how far a model's posterior q(z | x_S) is from the one that its own decoders imply,

    p_theta(z | x_S) = p(z) prod_{j in S} p_theta(x_j | z) / p_theta(x_S).

In two latent dimensions both are tabulated on a grid and KL(p_theta || q) is exact up to the grid. In more dimensions p_theta is sampled by long
chains on the decoders, the unknown normalisers are bounded from both sides by importance sampling, and a classifier is asked to
tell draws of the two apart.
"""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jnf_jax import distributions, keys, objectives, types
from jnf_jax import specs as specs_lib
from jnf_jax.data import source
from jnf_jax.metrics import subset_score
from jnf_jax.models import base
from jnf_jax.posteriors import hmc

_RIDGE = 1e-6
_NUM_CHAINS = 4


class Grid(NamedTuple):
    """Points of a square around the origin, each standing for a cell of one size."""

    points: np.ndarray  # [G, 2]
    log_area: float  # of one cell


def make_grid(*, radius: float = 5.0, num: int = 401) -> Grid:
    """Returns `num` x `num` points from -radius to radius."""
    line = np.linspace(-radius, radius, num)
    points = np.stack(np.meshgrid(line, line, indexing="ij"), axis=-1).reshape(-1, 2)
    return Grid(points.astype(np.float32), float(2 * np.log(line[1] - line[0])))


def true_posterior(model: base.Model, params: types.Params, observed: types.Batch, grid: Grid) -> np.ndarray:
    """Returns log p_theta(z | x_S) at the grid's points, `[B, G]` float64, normalised on the grid.

    Raises:
      ValueError: if the latent space has not two dimensions.
    """
    if model.latent_dim != 2:
        raise ValueError(f"Expected a latent space of 2 dimensions for a grid, got {model.latent_dim}.")
    data = {name: distributions.canonical(model.specs[name], x) for name, x in observed.items()}

    @jax.jit
    def at(z):
        decoded = model.decode(params, z)
        terms = [_each_with_each(model.specs[name], decoded[name], x) for name, x in data.items()]
        return sum(terms) + _log_prior(model, params, z)[:, None]

    return _normalised(_over_grid(at, grid), grid)


def _log_prior(model: base.Model, params: types.Params, z: types.Array) -> types.Array:
    """Returns log p(z) `[..]`."""
    if model.prior_log_density is None:
        return distributions.standard_normal_log_prob(z)
    return model.prior_log_density(params, z)


def _each_with_each(spec: specs_lib.ModalitySpec, parameters: types.Array, x: types.Array) -> types.Array:
    """Returns log p(x_b | parameters_g) `[G, B]`, by a matrix product where the likelihood has one."""
    flat, data = parameters.reshape(len(parameters), -1), x.reshape(len(x), -1)
    product = functools.partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)
    if spec.likelihood == "gaussian":
        squared = (flat**2).sum(1)[:, None] - 2 * product(flat, data.T) + (data**2).sum(1)
        return -0.5 * squared / spec.scale**2 - spec.size * (math.log(spec.scale) + 0.5 * math.log(2 * math.pi))
    if spec.likelihood == "bernoulli":
        return product(flat, data.T) - jax.nn.softplus(flat).sum(1)[:, None]
    return distributions.log_likelihood(spec, parameters[:, None], x)


def log_joint(model: base.Model, params: types.Params, observed: types.Batch, z: types.Array) -> types.Array:
    """Returns log p(z) + sum_{j in S} log p_theta(x_j | z), `[.., B]`, at z `[.., 1 or B, D]`."""
    decoded = model.decode(params, z)
    data = {name: distributions.canonical(model.specs[name], x) for name, x in observed.items()}
    terms = objectives.log_likelihoods(model.specs, {name: decoded[name] for name in data}, data)
    return sum(terms.values()) + _log_prior(model, params, z)


def model_posterior(model: base.Model, params: types.Params, observed: types.Batch, grid: Grid) -> np.ndarray:
    """Returns log q(z | x_S) at the grid's points, `[B, G]` float64; a product of experts is normalised on the grid."""
    at = lambda z: model.posterior_log_density(params, observed, z[:, None])
    value = _over_grid(at, grid)
    return _normalised(value, grid) if 1 < len(observed) < len(model.specs) else value


def averaged_joint_posterior(
    model: base.Model, params: types.Params, observed: types.Batch, partners: list[types.Batch], grid: Grid
) -> np.ndarray:
    """Returns the log density, `[B, G]` float64, of the mixture of q(z | x_S, partner) over what the rest could have been.

    This is what stage 2 aims at. It is as far from p_theta as stage 1 leaves it; a smoother posterior can be closer, where the mixture's components
    are narrow or few.

    Args:
      model: the model.
      params: its parameters.
      observed: the modalities S.
      partners: for each observation the other modalities, `[P, *shape]` each, drawn given what it shares with them.
      grid: the grid.
    """

    @jax.jit
    def mixture(whole, z):
        each = model.posterior_log_density(params, whole, z[:, None])
        return (jax.nn.logsumexp(each, axis=1) - jnp.log(each.shape[1]))[:, None]

    out = []
    for i, others in enumerate(partners):
        num = len(next(iter(others.values())))
        whole = {name: np.repeat(np.asarray(x[i : i + 1]), num, axis=0) for name, x in observed.items()} | dict(others)
        out.append(_over_grid(functools.partial(mixture, whole), grid, chunk=20_000)[0])
    return np.stack(out)


def kl_on_grid(log_p: np.ndarray, log_q: np.ndarray, grid: Grid) -> np.ndarray:
    """Returns KL(p || q) `[B]` of densities tabulated on a grid, `[B, G]` each."""
    mass = np.exp(log_p + grid.log_area)
    return np.where(mass == 0, 0, mass * (log_p - log_q)).sum(-1)  # NaN stays NaN


def coarser(log_density: np.ndarray, grid: Grid) -> tuple[np.ndarray, Grid]:
    """Returns every other point of a table `[B, G]` and the grid of those: what changes tells the grid's own error."""
    num = round(np.sqrt(len(grid.points)))
    keep = lambda table: table.reshape(*table.shape[:-1], num, num)[..., ::2, ::2].reshape(*table.shape[:-1], -1)
    return keep(log_density), Grid(keep(grid.points.T).T, grid.log_area + float(np.log(4)))


def _over_grid(function: Callable[[types.Array], types.Array], grid: Grid, *, chunk: int = 2_000) -> np.ndarray:
    """Returns function(points) `[G, B]`, transposed, computed in chunks of one shape."""
    num = len(grid.points)
    points = np.concatenate([grid.points, np.zeros((-num % chunk, 2), np.float32)])
    parts = [np.asarray(function(points[start : start + chunk])) for start in range(0, num, chunk)]
    return np.concatenate(parts)[:num].T.astype(np.float64)


def _normalised(log_density: np.ndarray, grid: Grid) -> np.ndarray:
    return log_density - (np.logaddexp.reduce(log_density, axis=-1, keepdims=True) + grid.log_area)


class Sampled(NamedTuple):
    """What chains and importance sampling say of the gap, per observation."""

    lower: np.ndarray  # [B] bounds of KL(p_theta || q), in nats, in expectation
    upper: np.ndarray  # [B]
    accuracy: np.ndarray  # [B] of a classifier on held-out draws of p_theta and q; 0.5: they cannot be told apart
    info: types.Info  # of the chains on p_theta


def sampled_gap(
    model: base.Model,
    params: types.Params,
    key: types.Array,
    observed: types.Batch,
    *,
    num_draws: int = 1_000,
    num_importance: int = 1_000,
    config: hmc.Config | None = None,
) -> Sampled:
    """Bounds the gap in any number of dimensions.

    KL(p || q) = E_p[log p~ - log q~] - log Z_p + log Z_q, p~ the joint density of z and x_S, q~ the model's (Z_q = 1 for one modality and for all).
    Importance sampling bounds a normaliser from below (Burda et al., 2016), and from above if one of its K samples is a draw of the target
    itself (Grosse et al., 2015). The proposal is the Gaussian of the draws of all of the target's chains but one; those of the upper bound are of
    that one, for of draws that the proposal was fitted to it would be too low. A proposal from few draws in many dimensions makes it loose.

    Args:
      model: the model.
      params: its parameters.
      key: random key.
      observed: modality -> `[B, *shape]`.
      num_draws: draws of p_theta and of q, at least four for each latent dimension.
      num_importance: K.
      config: of the chains on p_theta, two at least; four long ones where None.

    Raises:
      ValueError: for fewer draws or chains, or a model whose codes have parts.
    """
    if num_draws < 4 * model.latent_dim:
        raise ValueError(
            f"Expected num_draws of at least {4 * model.latent_dim} for {model.latent_dim} latent dimensions, got {num_draws}."
        )
    config = config or hmc.Config(num_chains=_NUM_CHAINS, num_warmup=400, thinning=5, outside=None)
    q, _ = model.sample_posterior(params, keys.stream(key, "q"), observed, num_samples=num_draws)
    if not isinstance(q, jax.Array | np.ndarray):
        raise ValueError(f"Expected a model with one code, got one with {jax.tree.structure(q)}.")
    data = {name: distributions.canonical(model.specs[name], x) for name, x in observed.items()}

    def target(x, z):
        return log_joint(model, params, jax.tree.map(lambda leaf: leaf[None], x), z[None])[0]

    chains = config.chains_for(num_draws)
    if chains < 2:
        raise ValueError(f"Expected a config of at least 2 chains, got {chains}.")
    sample = jax.jit(lambda key, data, starts, variance: hmc.sample(
        target, key, data, starts, variance, num_samples=num_draws, config=config
    ))  # fmt: skip
    p, _, info = sample(keys.stream(key, "p"), data, q[:chains].swapaxes(0, 1), q.var(0))

    exact = not 1 < len(observed) < len(model.specs)
    log_p = jax.jit(lambda z: log_joint(model, params, data, z))
    log_q = jax.jit(lambda z: model.posterior_log_density(params, observed, z))
    over_draws = lambda function, z: np.concatenate(
        [np.asarray(function(part)) for part in np.array_split(z, -(-len(z) // 50))]
    )
    difference = (over_draws(log_p, p) - over_draws(log_q, p)).mean(0)
    bounds = functools.partial(_normaliser_bounds, num_importance=num_importance)
    z_p = bounds(keys.stream(key, "Z_p"), lambda z: over_draws(log_p, z), hmc.by_chain(np.asarray(p), chains))
    z_q = (0.0, 0.0)
    if not exact:
        z_q = bounds(keys.stream(key, "Z_q"), lambda z: over_draws(log_q, z), hmc.by_chain(np.asarray(q), _NUM_CHAINS))
    return Sampled(
        lower=difference - z_p[1] + z_q[0],
        upper=difference - z_p[0] + z_q[1],
        accuracy=two_sample_accuracy(np.asarray(p), np.asarray(q)),
        info=jax.device_get(info),
    )


def _normaliser_bounds(key, log_density, draws: np.ndarray, *, num_importance: int, repeats: int = 8):
    """Returns a lower and an upper bound, `[B]` each and in expectation, of the log normaliser of a density with draws `[C, N, B, D]`."""
    exact, fitted = draws[0], draws[1:].reshape(-1, *draws.shape[2:])
    mean, dim = fitted.mean(0), draws.shape[-1]
    covariance = np.einsum("sbi,sbj->bij", fitted - mean, fitted - mean) / (len(fitted) - 1) + _RIDGE * np.eye(dim)
    root = np.linalg.cholesky(covariance)
    log_det = np.log(np.diagonal(root, axis1=1, axis2=2)).sum(-1)

    def log_proposal(z):
        noise = np.linalg.solve(root, (z - mean)[..., None])[..., 0]
        return -0.5 * (noise**2).sum(-1) - log_det - 0.5 * dim * np.log(2 * np.pi)

    noise = np.asarray(jax.random.normal(key, (num_importance, *mean.shape)))
    proposed = mean + np.einsum("bij,sbj->sbi", root, noise)
    weights = log_density(proposed.astype(draws.dtype)) - log_proposal(proposed)
    exact = exact[np.linspace(0, len(exact) - 1, repeats).astype(int)]
    exact_weights = log_density(exact) - log_proposal(exact)
    lower = np.logaddexp.reduce(weights, axis=0) - np.log(num_importance)
    others = np.logaddexp.reduce(weights[1:], axis=0)
    upper = (np.logaddexp(exact_weights, others) - np.log(num_importance)).mean(0)
    return lower, upper


def two_sample_accuracy(p: np.ndarray, q: np.ndarray, *, seed: int = 0) -> np.ndarray:
    """Returns the accuracy `[B]` on held-out draws of a classifier between two sets of draws `[S, B, D]` (Lopez-Paz and Oquab, 2017).

    One classifier for each observation, boosted trees, trained on the first half of the draws.
    """
    return np.asarray([subset_score.two_sample_accuracy(p[:, b], q[:, b], seed=seed) for b in range(p.shape[1])])


def neighbours(features: np.ndarray, others: np.ndarray, num: int) -> np.ndarray:
    """Returns the indices `[B, num]` of the rows of `others` `[N, K]` closest to each row of `features` `[B, K]`; all of them where there are fewer."""
    num = min(num, len(others))
    squared = (features**2).sum(-1)[:, None] - 2 * features @ others.T + (others**2).sum(-1)
    return np.argpartition(squared, num - 1, axis=1)[:, :num]


def average(log_density: np.ndarray, members: np.ndarray) -> np.ndarray:
    """Returns the log of the mean density `[B, G]` over the rows `members` `[B, P]` of a table `[N, G]`."""
    return np.stack([np.logaddexp.reduce(log_density[rows], axis=0) - np.log(len(rows)) for rows in members])


def distinct(data: source.Source, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns the indices of a modality's first occurrences and for each example the position of its own among them."""
    rows = np.ascontiguousarray(data.arrays[name]).reshape(len(data), -1)
    _, first, inverse = np.unique(rows, axis=0, return_index=True, return_inverse=True)
    return first, inverse.reshape(-1)
