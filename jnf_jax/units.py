"""Values in the units they were measured in. Readers standardise real values, column by column; a spec remembers by what."""

import jax
import jax.numpy as jnp
import numpy as np

from jnf_jax import specs as specs_lib
from jnf_jax import types


def original(spec: specs_lib.ModalitySpec, x: types.Array) -> types.Array:
    """Returns values `[.., *shape]` of a modality in the units of the file: mean + deviation x; as they are where nobody standardised them."""
    if spec.mean is None:
        return x
    return _column(spec, spec.mean, x) + _column(spec, spec.deviation, x) * x


def standardised(spec: specs_lib.ModalitySpec, x: types.Array) -> types.Array:
    """Returns values `[.., *shape]` in the units of the file as the model takes them: (x - mean) / deviation."""
    if spec.mean is None:
        return x
    x = x if isinstance(x, jax.Array) else np.asarray(x, float)  # single precision loses small deviations from a large mean
    found = (x - _column(spec, spec.mean, x)) / _column(spec, spec.deviation, x)
    return found if isinstance(x, jax.Array) else found.astype(np.float32)


def _column(spec: specs_lib.ModalitySpec, values: tuple[float, ...], x: types.Array) -> np.ndarray:
    if np.shape(x)[np.ndim(x) - len(spec.shape) :] != spec.shape:
        raise ValueError(f"Expected data of shape (.., {', '.join(map(str, spec.shape))}), got {np.shape(x)}.")
    kind = jnp.promote_types(x.dtype, jnp.float32) if isinstance(x, jax.Array) else float
    return np.asarray(values, kind).reshape(spec.shape)
