"""MADE: a masked network whose i-th output depends on the inputs before i alone (Germain et al., 2015)."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jnf_jax import types
from jnf_jax.networks import activations

_LARGEST = 80.0  # an output from which on the exponential would overflow


def degrees(dim: int, width: int) -> np.ndarray:
    """Returns the degree of each hidden unit, `[width]` in 1..dim-1.

    They are spread over the whole range also where the width is below `dim`; counted up from 1 instead, no output would see an
    input beyond the width-th.
    """
    return np.rint(np.linspace(1, max(dim - 1, 1), width)).astype(int)


def masks(dim: int, hidden: Sequence[int]) -> list[np.ndarray]:
    """Returns the mask of each weight matrix `[inputs, outputs]`; the last one's outputs have shape `[dim]`.

    A hidden unit of degree d sees the inputs 1..d; output i sees the hidden units of degree below i.
    """
    inputs = np.arange(1, dim + 1)
    layers = [inputs, *(degrees(dim, width) for width in hidden)]
    between = [before[:, None] <= after[None, :] for before, after in zip(layers[:-1], layers[1:], strict=True)]
    return [*between, layers[-1][:, None] < inputs[None, :]]


def init(key: types.Array, dim: int, hidden: Sequence[int], *, last_scale: float = 0.01) -> list[dict[str, types.Array]]:
    """Returns the parameters of a MADE with two outputs a dimension; the last layer starts small, near the identity flow."""
    params = []
    all_masks = masks(dim, hidden)
    for i, mask in enumerate(all_masks):
        last = i == len(all_masks) - 1
        shape = (*mask.shape, 2) if last else mask.shape
        fan_in = np.maximum(mask.sum(0), 1)[None, :, None] if last else np.maximum(mask.sum(0), 1)[None, :]
        gain = last_scale if last else math.sqrt(2.0)
        kernel = gain * jax.random.normal(jax.random.fold_in(key, i), shape) / jnp.sqrt(jnp.asarray(fan_in, float))
        params.append({"kernel": kernel, "bias": jnp.zeros(shape[1:])})
    return params


def apply(
    params: list[dict[str, types.Array]], x: types.Array, *, hidden: Sequence[int], activation: str, backwards: bool = False
) -> tuple[types.Array, types.Array]:
    """Returns the two outputs of each dimension, `[D]` and `[D]`, of one point `[D]`.

    Args:
      params: of the network.
      x: `[D]`.
      hidden: widths of the hidden layers.
      activation: its name.
      backwards: whether the dimensions of x and of the outputs are counted from the last one. Weights are turned around then: they do not
        change in a chain, where points do.
    """
    turned = jnp.flip if backwards else (lambda array, axis: array)
    *between, last = (mask.astype(x.dtype) for mask in masks(x.shape[-1], hidden))
    act = activations.activation(activation)
    for i, (layer, mask) in enumerate(zip(params[:-1], between, strict=True)):
        kernel = layer["kernel"] * mask
        x = act(x @ (kernel if i else turned(kernel, 0)) + layer["bias"])

    # Two products and not one: what each output's gradient is made of is then computed for that output alone, by vectorised loops.
    def output(i):
        kernel = turned(params[-1]["kernel"][..., i] * last, 1)
        return x @ (kernel if between else turned(kernel, 0)) + turned(params[-1]["bias"][:, i], 0)

    return output(0), output(1)


def bounded(raw: types.Array, bound: float) -> types.Array:
    """Returns a value in (-bound, bound), close to `raw` near 0."""
    return bound * jnp.tanh(raw / bound)


def log_scale(raw: types.Array, bound: float, *, widening: bool) -> types.Array:
    """Returns a log scale from an unbounded output: in (-bound, bound), or in (-bound, 0), near 0 for 0, if it must not widen.

    The second is -bound tanh(softplus(raw - 2) / bound), by exponentials alone: on a CPU XLA takes longest over logarithms. Its error is a rounding
    of `bound`.
    """
    if widening:
        return bounded(raw, bound)
    grown = 1 + jnp.exp(jnp.minimum(raw - 2.0, _LARGEST))
    shrunk = jax.lax.rsqrt(grown) if bound == 4 else grown ** (-2 / bound)  # exp(-2 softplus(raw - 2) / bound)
    return -bound * (1 - shrunk) / (1 + shrunk)
