"""Random keys by name, the same in every process (Python's own `hash` of a string is not)."""

import zlib

import jax


def stream(key: jax.Array, name: str, step: int | jax.Array = 0) -> jax.Array:
    """Returns the key of `name` at `step`."""
    return jax.random.fold_in(jax.random.fold_in(key, zlib.crc32(name.encode()) & 0x7FFFFFFF), step)
