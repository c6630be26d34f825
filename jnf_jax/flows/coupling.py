"""Coupling flows (Dinh et al., 2017; Durkan et al., 2019): half of the coordinates are mapped given the other half, in turns.

Both directions cost one pass. The bijections are distrax's: affine, or rational-quadratic splines that are the identity outside
their range.
"""

import dataclasses
import math
from typing import Literal

import distrax
import jax
import jax.numpy as jnp

from jnf_jax import configs
from jnf_jax.flows import base, made
from jnf_jax.networks import activations


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(configs.Component):
    """A coupling flow.

    Attributes:
      bijection: `affine` or `spline` (rational-quadratic).
      num_layers: number of coupling layers; the halves take turns.
      hidden: widths of each conditioner's hidden layers.
      activation: relu, silu, gelu or tanh.
      log_scale_bound: affine: bound of the log scale in one layer.
      widening: affine: whether a layer may shrink distances on the way to the base, and so an expert be wider than its base Gaussian.
      input_bound: conditioners see b tanh(z / b): far outside the data a layer becomes affine.
      num_bins: spline: number of bins.
      range: spline: the spline covers [-range, range], the identity the rest.
    """

    bijection: Literal["affine", "spline"] = "affine"
    num_layers: int = 4
    hidden: tuple[int, ...] = (128, 128)
    activation: str = "silu"
    log_scale_bound: float = 4.0
    widening: bool = False
    input_bound: float = 2.5
    num_bins: int = 8
    range: float = 6.0


def build(config: Config, dim: int) -> base.Flow:
    """Returns the flow on R^dim.

    Raises:
      ValueError: if dim is below 2, or the bijection is unknown.
    """
    if dim < 2:
        raise ValueError(f"Expected at least 2 dimensions for a coupling flow, got {dim}.")
    if config.bijection not in ("affine", "spline"):
        raise ValueError(f"Expected a bijection 'affine' or 'spline', got {config.bijection!r}.")
    num_outputs = 2 if config.bijection == "affine" else 3 * config.num_bins + 1

    def init(key):
        return [
            _init_conditioner(jax.random.fold_in(key, i), dim, config.hidden, num_outputs) for i in range(config.num_layers)
        ]

    def chain(params):
        layers = [_layer(config, dim, i, layer) for i, layer in enumerate(params)]
        return distrax.Chain(layers[::-1])  # distrax applies the last one first

    return base.Flow(
        init=init,
        forward=lambda params, z: chain(params).forward_and_log_det(z),
        inverse=lambda params, u: chain(params).inverse_and_log_det(u),
    )


def _layer(config: Config, dim: int, index: int, params) -> distrax.Bijector:
    """Maps the coordinates of one parity given the others."""
    fixed = (jnp.arange(dim) + index) % 2 == 0
    act = activations.activation(config.activation)

    def conditioner(x):
        x = made.bounded(x, config.input_bound)
        for layer in params[:-1]:
            x = act(x @ layer["kernel"] + layer["bias"])
        return (x @ params[-1]["kernel"] + params[-1]["bias"]).reshape(dim, -1)

    def affine(raw):
        log_scale = made.log_scale(raw[:, 1], config.log_scale_bound, widening=config.widening)
        return distrax.ScalarAffine(shift=raw[:, 0], log_scale=-log_scale)

    def spline(raw):
        return distrax.RationalQuadraticSpline(raw, range_min=-config.range, range_max=config.range, boundary_slopes="identity")

    return distrax.MaskedCoupling(
        mask=fixed, conditioner=conditioner, bijector=affine if config.bijection == "affine" else spline
    )


def _init_conditioner(key, dim: int, hidden: tuple[int, ...], num_outputs: int):
    widths = [dim, *hidden, dim * num_outputs]
    params = []
    for i, (inputs, outputs) in enumerate(zip(widths[:-1], widths[1:], strict=True)):
        gain = 0.01 if i == len(hidden) else math.sqrt(2.0)  # near the identity
        kernel = gain / math.sqrt(inputs) * jax.random.normal(jax.random.fold_in(key, i), (inputs, outputs))
        params.append({"kernel": kernel, "bias": jnp.zeros(outputs)})
    return params
