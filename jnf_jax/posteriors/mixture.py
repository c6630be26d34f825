"""Mixtures of Gaussian (or Laplace) posteriors, sampled exactly.

q(z) = sum_c w_c q_c(z)
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jnf_jax import distributions, types


class Mixture(NamedTuple):
    """A mixture for each observation."""

    components: types.Gaussian  # loc, scale [C, B, D]
    log_weights: types.Array  # [C, B] logarithms of weights that add up to 1


def uniform(components: types.Gaussian, present: types.Array | None = None) -> Mixture:
    """Returns the mixture of equally likely components.

    Args:
      components: loc, scale `[C, B, D]`.
      present: `[C, B]` bool; a component that is absent has no weight. None: all are present.
    """
    if present is None:
        present = jnp.ones(components.loc.shape[:-1], bool)
    log_weights = jnp.where(present, -jnp.log(present.sum(0)), -jnp.inf)
    return Mixture(components, log_weights.astype(components.loc.dtype))


def component_log_probs(components: types.Gaussian, z: types.Array, *, family: str = "gaussian") -> types.Array:
    """Returns log q_c(z) of every component `[.., C, B]` at z `[.., 1 or B, D]`."""
    return distributions.family_log_prob(family, components, z[..., None, :, :])


def log_prob(mixture: Mixture, z: types.Array, *, family: str = "gaussian") -> types.Array:
    """Returns log q(z) `[.., B]` at z `[.., 1 or B, D]`."""
    each = component_log_probs(mixture.components, z, family=family)
    return jax.nn.logsumexp(mixture.log_weights + each, axis=-2)


def sample(key: types.Array, mixture: Mixture, *, family: str = "gaussian") -> types.Array:
    """Returns one exact draw for each observation, `[B, D]`: a component at random, then a draw of it."""
    choice_key, draw_key = jax.random.split(key)
    choice = jax.random.categorical(choice_key, mixture.log_weights, axis=0)  # [B]
    chosen = jax.tree.map(lambda leaf: jnp.take_along_axis(leaf, choice[None, :, None], axis=0)[0], mixture.components)
    return distributions.family_sample(family, draw_key, chosen)
