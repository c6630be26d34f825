"""Contrastive projectors (JNF-CL): views of one thing are drawn together, all others of the batch apart.

g_j(x) = normalise(head(net_j(x))), the head shared by all modalities. For each pair i < j the embeddings of both are stacked; each of the
2B rows has one match, and the loss is the mean of -log softmax(similarities / tau) at it, a row's similarity with itself left out
(NT-Xent; Chen et al., 2020), summed over the pairs.
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp

from jnf_jax import configs, keys, types
from jnf_jax.networks import base as networks_base
from jnf_jax.networks import modalities as modalities_lib
from jnf_jax.projectors import base


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(configs.Component):
    """Contrastive projectors.

    Attributes:
      dim: K, of the embedding; a point of the unit sphere.
      width: of what each modality's network hands to the shared head.
      temperature: tau.
    """

    dim: int = 10
    width: int = 128
    temperature: float = 0.1

    def __post_init__(self):
        super().__post_init__()
        if self.dim < 2:
            raise ValueError(f"Expected an embedding of at least 2 dimensions, got {self.dim}.")
        if not self.temperature > 0:
            raise ValueError(f"Expected a positive temperature, got {self.temperature}.")


def build(config: Config, modalities: modalities_lib.Modalities) -> base.Projector:
    """Returns the projectors of all modalities; their networks have the form of the modalities' encoders."""
    body, head = nn.Dense(config.width), nn.Dense(config.dim)

    def init(key):
        encoders = modalities.init_encoders(keys.stream(key, "encoders"))
        bodies = {
            name: networks_base.init(body, keys.stream(key, f"body {name}"), modalities.features_shape(name))
            for name in modalities.names
        }
        shared = networks_base.init(head, keys.stream(key, "head"), (1, config.width))
        return {"encoders": encoders, "bodies": bodies, "head": shared}

    def project(params, name, x):
        hidden = nn.relu(body.apply(params["bodies"][name], modalities.features(params["encoders"], name, x)))
        return _normalise(head.apply(params["head"], hidden))

    def loss(params, key, batch):
        del key
        embedded = {name: project(params, name, batch[name]) for name in modalities.names}
        pairs = {
            f"{i}+{j}": nt_xent(embedded[i], embedded[j], config.temperature, there)
            for (i, j), there in base.pairs_there(modalities, batch).items()
        }
        return sum(pairs.values()), {f"contrastive/{pair}": value for pair, value in pairs.items()}

    return base.Projector(init=init, project=project, loss=loss, incomplete=True, least_pairs=2)


def nt_xent(a: types.Array, b: types.Array, temperature: float, there: types.Array | None = None) -> types.Array:
    """Returns the contrastive loss `[]` of matching unit embeddings `[B, K]`; under `jit` on a mesh B is the global batch.

    Args:
      a: `[B, K]`.
      b: `[B, K]`.
      temperature: of the softmax.
      there: `[B]` bool, the examples that have both; None: all of them. The others are no negatives either.

    Raises:
      ValueError: if there is nothing to draw apart.
    """
    if len(a) < 2:
        raise ValueError(f"Expected a batch of at least 2 examples, got {len(a)}.")
    num = len(a)
    both = jnp.concatenate([a, b])
    similarity = (both @ both.T) / temperature
    both_there = jnp.tile(jnp.ones(num, bool) if there is None else there, 2)
    left_out = jnp.eye(2 * num, dtype=bool) | (both_there[:, None] & ~both_there)  # rows that do not count stay finite
    match = jnp.roll(jnp.arange(2 * num), num)
    found = jnp.take_along_axis(jax.nn.log_softmax(jnp.where(left_out, -jnp.inf, similarity)), match[:, None], axis=1)[:, 0]
    return -jnp.where(both_there, found, 0).sum() / jnp.maximum(both_there.sum(), 1)


def _normalise(x: types.Array) -> types.Array:
    return x * jax.lax.rsqrt((x**2).sum(-1, keepdims=True) + 1e-12)
