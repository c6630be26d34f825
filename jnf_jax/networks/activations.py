"""Activation functions by the names that configs use."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

ACTIVATIONS = {"relu": jax.nn.relu, "silu": jax.nn.silu, "gelu": jax.nn.gelu, "tanh": jnp.tanh}


def activation(name: str) -> Callable[[jax.Array], jax.Array]:
    """Returns the activation function of that name.

    Raises:
      ValueError: if there is none.
    """
    if name not in ACTIVATIONS:
        raise ValueError(f"Expected an activation of {sorted(ACTIVATIONS)}, got {name!r}.")
    return ACTIVATIONS[name]
