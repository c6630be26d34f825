"""Solving a triangular system, the slow direction of an autoregressive flow.

Given y and an autoregressive conditioner, find x with (x_i - m_i(x_<i)) exp(-s_i(x_<i)) = y_i. The Jacobi iteration
x <- m(x) + exp(s(x)) y sets at least one more coordinate right in each pass, so it is exact after at most D passes; it stops as soon
as a pass changes nothing beyond rounding, which for trained flows is long before. Under `vmap` all points share the
passes of the slowest.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from jnf_jax import types

Conditioner = Callable[[types.Params, types.Array], tuple[types.Array, types.Array]]
_LARGEST = 1e6  # iterates that are not yet right stay finite: a masked weight times infinity would be NaN


def solve(conditioner: Conditioner, params: types.Params, y: types.Array) -> types.Array:
    """Returns the x `[D]` that a block maps to `y`.

    Cost: at most D evaluations of the conditioner. A derivative, by the implicit function theorem, costs the conditioner's Jacobian
    (D of its tangents) and a triangular solve.

    Args:
      conditioner: maps (params, x `[D]`) to (m `[D]`, s `[D]`), output i depending on x_<i alone.
      params: of the conditioner.
      y: `[D]`.
    """
    return _solve(conditioner, params, y.astype(jnp.result_type(y, *jax.tree.leaves(params))))


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _solve(conditioner: Conditioner, params: types.Params, y: types.Array) -> types.Array:
    dim = y.shape[-1]
    tolerance = 4 * jnp.finfo(y.dtype).eps

    def unfinished(carry):
        step, _, change = carry
        return (step < dim) & (change > tolerance)

    def one_pass(carry):
        step, x, _ = carry
        shift, log_scale = conditioner(params, x)
        new = jnp.clip(shift + jnp.exp(log_scale) * y, -_LARGEST, _LARGEST)
        return step + 1, new, jnp.max(jnp.abs(new - x) / (1 + jnp.abs(new)))

    return jax.lax.while_loop(unfinished, one_pass, (0, jnp.zeros_like(y), jnp.asarray(jnp.inf, y.dtype)))[1]


@_solve.defjvp
def _solve_jvp(conditioner, primals, tangents):
    params, y = primals
    x = _solve(conditioner, params, y)

    def residual(params, y, x):
        shift, log_scale = conditioner(params, x)
        return (x - shift) * jnp.exp(-log_scale) - y

    matrix = jax.jacfwd(residual, argnums=2)(params, y, x)
    _, change = jax.jvp(lambda params, y: residual(params, y, x), primals, tangents)
    return x, -jax.scipy.linalg.solve_triangular(matrix, change, lower=True)
