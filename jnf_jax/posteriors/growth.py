"""Whether a density grows along some ray far from the prior's mass, as it does where a product of experts is improper."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jnf_jax import compiling, types

_RAY_RADII = (20.0, 40.0)  # prior standard deviations: beyond every draw
_RAY_BATCH, _RAYS_AT_ONCE = 16, 128  # observations whose rays are looked at together, and rays of each
_ALL_DIRECTIONS, _FEW_DIRECTIONS, _LOBPCG_STEPS = 64, 4, 30


def grow_outward(
    target: Callable[[Any, types.Array], types.Array], data: Any, starts: types.Array, ends: types.Array
) -> types.Array:
    """Returns `grows_outward` `[B]` for every observation.

    Args:
      target: (one observation's data, z `[D]`) -> log density `[]`.
      data: pytree, leaves `[B, ..]`.
      starts: `[B, C, D]`.
      ends: `[B, C, D]`.
    """

    def grows(chains):
        return grows_outward(lambda z: target(chains[0], z), *chains[1:])

    if ends.shape[-1] <= _ALL_DIRECTIONS:
        return jax.vmap(grows)((data, starts, ends))
    return compiling.in_batches(grows, (data, starts, ends), most=_RAY_BATCH)  # rays of all at once would not fit


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
    axes, radii = jnp.eye(dim, dtype=ends.dtype), jnp.array(_RAY_RADII, ends.dtype)
    centre = ends.mean(0)
    principal = _principal_directions(target, centre)
    towards = jnp.concatenate([axes, -axes, principal, -principal, _unit(ends - centre), _unit(ends - starts)])
    near, far = compiling.in_batches(
        lambda way: jax.vmap(lambda r: target(centre + r * way))(radii), towards, most=_RAYS_AT_ONCE
    ).T
    # No direction: the end of a single chain is their mean, and one that never moved has no way.
    still = (towards**2).sum(1) < 0.5
    return ~jnp.all(jnp.where(still, jnp.isfinite(near), far < near))


def _principal_directions(target: types.LogDensity, centre: types.Array) -> types.Array:
    """Returns the directions `[K, D]` in which the log density falls off least around a point.

    They are all of the Hessian's up to 64 dimensions; beyond, the first few, found from its products with vectors alone.
    """
    if len(centre) <= _ALL_DIRECTIONS:
        return jnp.linalg.eigh(jnp.nan_to_num(jax.hessian(target)(centre)))[1].T
    from jax.experimental.sparse import linalg

    gradient = jax.grad(target)
    along = jax.vmap(lambda vector: jnp.nan_to_num(jax.jvp(gradient, (centre,), (vector,))[1]), in_axes=1, out_axes=1)
    start = jax.random.normal(jax.random.key(0), (len(centre), _FEW_DIRECTIONS), centre.dtype)
    return linalg.lobpcg_standard(along, start, m=_LOBPCG_STEPS)[1].T


def _unit(vectors: types.Array) -> types.Array:
    return vectors / jnp.maximum(jnp.linalg.norm(vectors, axis=-1, keepdims=True), 1e-6)
