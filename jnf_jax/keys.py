"""Random keys by name, the same in every process (Python's own `hash` of a string is not)."""

import zlib

import jax
import jax.numpy as jnp


def stream(key: jax.Array, name: str, step: int | jax.Array = 0) -> jax.Array:
    """Returns the key of `name` at `step`."""
    return jax.random.fold_in(jax.random.fold_in(key, zlib.crc32(name.encode()) & 0x7FFFFFFF), step)


def typed(key: jax.Array) -> jax.Array:
    """Returns a key of `jax.random.key`, given one or the older form that `jax.random.PRNGKey` returns."""
    return key if jnp.issubdtype(jnp.asarray(key).dtype, jax.dtypes.prng_key) else jax.random.wrap_key_data(jnp.asarray(key))
