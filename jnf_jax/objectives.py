"""Terms of objectives, per example and of no particular model."""

from collections.abc import Callable, Mapping
from typing import Any

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


def weighted_sum(terms: types.Batch, weights: Mapping[str, float], present: types.Array) -> types.Array:
    """Returns sum_j lambda_j log p(x_j | z) over the modalities that are there.

    Args:
      terms: modality -> `[.., B]`, in the order of the modalities.
      weights: lambda_j.
      present: `[M, B]` bool, or `[.., M, B]` with the terms' leading axes.
    """
    stacked = jnp.stack([weights[name] * term for name, term in terms.items()], axis=-2)
    return jnp.where(present, stacked, 0).sum(-2)


def importance_estimate(
    key: types.Array, log_weight: Callable[[types.Array], types.Array], *, num_importance: int
) -> types.Array:
    """Returns log mean exp `[B]` of so many importance weights, `log_weight(key)` `[B]` each, computed one after another.

    Raises:
      ValueError: if no importance sample is asked for.
    """
    if num_importance < 1:
        raise ValueError(f"Expected at least one importance sample, got {num_importance}.")
    return importance_log_likelihood(jax.lax.map(log_weight, jax.random.split(key, num_importance)))


def stratified_bound(log_weights: types.Array, coefficients: types.Array) -> types.Array:
    """Returns sum_mb c_mb log mean_k w_kmb `[]` of importance weights of K draws from each of M components.

    Args:
      log_weights: `[K, M, B]`.
      coefficients: c `[M, B]`; a term of coefficient 0 does not count, whatever its weights.
    """
    bound = importance_log_likelihood(log_weights)
    return jnp.where(coefficients > 0, coefficients * bound, 0).sum()


def stratified_dreg(
    log_weight: Callable[[Any, Any, Any], types.Array],
    draws: Any,
    theta: Any,
    proposals: Any,
    *,
    coefficients: types.Array,
    present: types.Array,
    log_components: Callable[[Any, Any], types.Array],
    scales: Callable[[types.Array, types.Array], Any],
    beta: float,
) -> types.Array:
    """Returns `stratified_bound` with a gradient of the same mean and less noise: doubly reparameterised (Tucker et al., 2019).

    With K draws z_k from component m, normalised weights v_k and log w = A(z) - beta log q(z), q the equal mixture of the q_j, the
    plain gradient in the proposals' parameters has two parts: one along the path of z, sum_k v_k (d log w / d z) (d z / d phi), and a
    score, -beta sum_k v_k sum_j r_j(z_k) d log q_j(z_k) / d phi with the responsibilities r_j. The score is noise that does not vanish as w
    becomes constant. For j = m, the component that z_k comes from, it has the mean of a path derivative:

        E[ v_k r_m d log q_m / d phi ] = E[ d(v_k r_m)/dz  dz/dphi ],    d v_k / dz_k = v_k (1 - v_k) d log w_k / dz_k

    so that the path's weight v_k becomes v_k (1 - beta (1 - v_k) r_m) and a path term -beta v_k d r_m / dz joins. For j != m
    no path leads from z_k to phi_j and the score stays. Components that do not overlap have r_m = 1; at beta = 1 the
    familiar v_k^2 is left. Using v_k^2 for a mixture in general, and no score, biases the gradient where components overlap.

    Args:
      log_weight: (draws, theta, proposals) -> log w `[K, M, B]`.
      draws: pytree, leaves `[K, M, B, ..]`, reparameterised draws.
      theta: parameters of everything else in log w.
      proposals: pytree of the parameters of the densities q_j.
      coefficients: c `[M, B]`.
      present: `[M, B]` bool: the components in the mixture.
      log_components: (draws, proposals) -> log q_j(z) `[K, M, J, B]`, J = M.
      scales: (v, r_m) `[K, M, B]` each -> a pytree as `draws` of factors `[K, M, B]` on the path's weight v.
      beta: weight of log q in log w.
    """
    stop = jax.lax.stop_gradient
    frozen = stop(proposals)
    log_w, pull = jax.vjp(lambda draws, theta: log_weight(draws, theta, frozen), stop(draws), stop(theta))
    normalised = jax.nn.softmax(log_w, axis=0)
    share = jnp.where(coefficients > 0, coefficients * normalised, 0)  # c_mb v_kmb

    def responsibilities(draws):
        return jax.nn.softmax(jnp.where(present, log_components(draws, frozen), -jnp.inf), axis=-2)

    own = lambda each: jnp.diagonal(each, axis1=1, axis2=2).swapaxes(1, 2)  # [K, M, J, B] -> [K, M, B]
    each = stop(responsibilities(draws))
    to_draws, to_theta = pull(share)
    factors = scales(normalised, own(each))
    path = _linear(jax.tree.map(lambda g, factor: g * factor[..., None], to_draws, factors), draws) + _linear(to_theta, theta)
    path -= beta * (share * own(responsibilities(draws))).sum()
    others = each * (1 - jnp.eye(len(coefficients))[:, :, None])
    score = -beta * (share[:, :, None] * others * log_components(stop(draws), proposals)).sum()
    surrogate = path + score
    return stratified_bound(log_w, coefficients) + surrogate - stop(surrogate)


def _linear(coefficients: Any, variables: Any) -> types.Array:
    """Returns the inner product of two pytrees."""
    return sum(jax.tree.leaves(jax.tree.map(lambda c, v: (jax.lax.stop_gradient(c) * v).sum(), coefficients, variables)))
