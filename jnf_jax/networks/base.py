"""The contract of the networks of one modality.

A network file exports `Config` and `build(config, spec) -> Networks`. The models add what is common to all: the Gaussian head behind
an encoder, the likelihood's link behind a decoder. A linen module of the user's own with the same signature can stand in for either.
"""

import functools
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jnf_jax import compiling, types


class Networks(NamedTuple):
    """The two networks of one modality."""

    encoder: nn.Module  # x [B, *input_shape] (one-hot for categories, log(1 + x) for counts) -> features [B, F]
    decoder: nn.Module  # z [B, D] -> raw outputs [B, *parameter_shape]


def init(module: nn.Module, key: types.Array, shape: tuple[int, ...]) -> types.Params:
    """Returns a module's parameters for inputs of a shape. Modules that are equal share one compiled program.

    Raises:
      ValueError: if it has variables that are no parameters, as running means: all variables would be trained.
    """
    variables = (_compiled_init if _is_hashable(module) else _init)(module, shape, key)
    if others := sorted(set(variables) - {"params"}):
        raise ValueError(
            f"Expected a network whose variables are all parameters, got {type(module).__name__} with {others}: normalise by LayerNorm or "
            "GroupNorm, and keep constants in the module's fields."
        )
    return variables


def apply(module: nn.Module, variables: types.Params, x: types.Array) -> Any:
    """Returns what a module makes of an input. Modules that are equal are traced once."""
    return (_jitted_apply if _is_hashable(module) else _apply)(module, variables, x)


def output_shape(module: nn.Module, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Returns the shape of what a module makes of inputs of a shape; nothing is computed."""
    return (_cached_output_shape if _is_hashable(module) else _output_shape)(module, shape)


def _is_hashable(module):
    try:
        hash(module)
    except TypeError:  # one of the user's own that holds a list or an array
        return False
    return True


def _init(module, shape, key):
    return module.init(key, jnp.zeros(shape))


def _apply(module, variables, x):
    return module.apply(variables, x)


def _output_shape(module, shape):
    compute = lambda key: module.init_with_output(key, jnp.zeros(shape))[0]
    return jax.eval_shape(compute, jax.random.key(0)).shape


_jitted_apply = jax.jit(_apply, static_argnums=0)
_compiled_init = compiling.quickly(_init, static_argnums=(0, 1))
_cached_output_shape = functools.lru_cache(maxsize=256)(_output_shape)


class GaussianHead(nn.Module):
    """Dense layers from features `[B, F]` to the location and scale of a Gaussian `[B, D]`.

    Attributes:
      dim: D.
      scale_transform: `softplus` or `exp`: how the raw scale is made positive.
      full: whether its coordinates are correlated; untrained, they are not.
    """

    dim: int
    scale_transform: str = "softplus"
    full: bool = False

    @nn.compact
    def __call__(self, features: types.Array) -> types.Gaussian:
        loc = nn.Dense(self.dim, name="loc")(features)
        raw = nn.Dense(self.dim, name="scale")(features)
        gaussian = types.Gaussian(loc=loc, scale=positive(raw, self.scale_transform))
        if not self.full or self.dim == 1:
            return gaussian
        entries = nn.Dense(self.dim * (self.dim - 1) // 2, name="lower", kernel_init=nn.initializers.zeros)(features)
        lower = jnp.zeros((*loc.shape, self.dim), loc.dtype).at[..., *jnp.tril_indices(self.dim, -1)].set(entries)
        return gaussian._replace(lower=lower)


SCALE_TRANSFORMS = ("softplus", "exp")
_SMALLEST_SCALE = 1e-4  # keeps log scales finite in float32


def positive(raw: types.Array, transform: str) -> types.Array:
    """Returns positive scales; both transforms give 1 at 0, so that an untrained posterior has the prior's width."""
    if transform == "softplus":
        return nn.softplus(raw + jnp.log(jnp.e - 1)) + _SMALLEST_SCALE
    if transform == "exp":
        return jnp.exp(jnp.clip(raw, -10, 10)) + _SMALLEST_SCALE
    raise ValueError(f"Expected a scale transform of {SCALE_TRANSFORMS}, got {transform!r}.")
