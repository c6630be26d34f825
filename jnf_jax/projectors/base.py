"""The contract of a projector: functions g_j(x_j) that keep what the modalities share (JNF-Shared).

A projector file exports `Config` and `build(config, modalities) -> Projector`. It is trained as a stage of its own, before the others, and
frozen from then on; the experts see g_j(x_j) in place of x_j. Features of your own (a pretrained encoder) take its place
through `given`.
"""

import dataclasses
import itertools
from collections.abc import Callable, Mapping
from typing import Protocol

import jax.numpy as jnp

from jnf_jax import types
from jnf_jax.networks import modalities as modalities_lib


class Loss(Protocol):
    """What a projector minimises, over a batch as a whole."""

    def __call__(
        self, params: types.Params, key: types.Array, batch: types.Batch
    ) -> tuple[types.Array, dict[str, types.Array]]:
        """Maps the projector's params and modality -> x [B, *shape], canonical, to (scalar, metrics).

        Where the projector is `incomplete`, the batch may have masks, `types.MASKS`.
        """


@dataclasses.dataclass(frozen=True)
class Projector:
    """Pure functions of one projector.

    Attributes:
      init: (key) -> params.
      project: (params, name, x) -> g_j(x_j) `[B, K]`, x `[B, *shape]` as `distributions.canonical` returns it.
      loss: what it minimises; None where there is nothing to train.
      incomplete: whether the loss takes examples that lack modalities.
      least_pairs: number of examples of a batch that must have both of two modalities, for the loss to say anything of them.
    """

    init: Callable[[types.Array], types.Params]
    project: Callable[[types.Params, str, types.Array], types.Array]
    loss: Loss | None
    incomplete: bool = False
    least_pairs: int = 0


def given(features: Mapping[str, Callable[[types.Array], types.Array]]) -> Projector:
    """Returns a projector of frozen features.

    Args:
      features: modality -> function x `[B, *shape]` -> `[B, K]` that JAX can trace, its weights inside it. x is canonical: 8-bit
        images scaled onto their support, categories as integers, anything else as it is.

    Raises (its `project`):
      ValueError: if a modality has no features, or they are not of shape `[B, K]`.
    """

    def project(params, name, x):
        del params
        if name not in features:
            raise ValueError(f"Expected features of modality {name!r}, got features of {sorted(features)}.")
        out = features[name](x)
        if jnp.ndim(out) != 2 or len(out) != len(x):
            raise ValueError(f"Expected features of {name!r} of shape ({len(x)}, K), got {jnp.shape(out)}.")
        return out

    return Projector(init=lambda key: {}, project=project, loss=None)


def pairs_there(modalities: modalities_lib.Modalities, batch: types.Batch) -> dict[tuple[str, str], types.Array]:
    """Returns for each pair of modalities which examples have both, `[B]` bool."""
    there = dict(zip(modalities.names, modalities.split(batch)[1], strict=True))
    return {(i, j): there[i] & there[j] for i, j in itertools.combinations(modalities.names, 2)}
