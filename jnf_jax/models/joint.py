"""A joint encoder, and the VAE on all modalities that it belongs to.

ELBO(X) = E_q(z|X)[ sum_j lambda_j log p(x_j | z) ] - beta KL( q(z|X) || p(z) )
"""

import dataclasses

import flax.linen as nn
import jax.numpy as jnp

from jnf_jax import distributions, keys, objectives, types
from jnf_jax.models import base
from jnf_jax.networks import base as networks_base
from jnf_jax.networks import modalities


@dataclasses.dataclass(frozen=True)
class Encoder:
    """q(z | X): an encoder for each modality, their features concatenated, a trunk and a head.

    Params are {"encoders": modality -> .., "trunk": .., "head": ..}.

    Attributes:
      modalities: the networks.
      trunk: concatenated features `[B, F]` -> `[B, H]`.
      head: from `[B, H]` to the Gaussian.
    """

    modalities: modalities.Modalities
    trunk: nn.Module
    head: networks_base.GaussianHead

    def init(self, key: types.Array) -> types.Params:
        """Returns the parameters."""
        encoders = self.modalities.init_encoders(keys.stream(key, "joint"))
        features = jnp.concatenate([self.modalities.example_features(encoders, n) for n in self.modalities.names], axis=-1)
        trunk = self.trunk.init(keys.stream(key, "trunk"), features)
        head = self.head.init(keys.stream(key, "head"), self.trunk.apply(trunk, features))
        return {"encoders": encoders, "trunk": trunk, "head": head}

    def encode(self, params: types.Params, data: types.Batch) -> types.Gaussian:
        """Returns q(z | X), `[B, D]`."""
        features = [self.modalities.features(params["encoders"], name, data[name]) for name in self.modalities.names]
        return self.head.apply(params["head"], self.trunk.apply(params["trunk"], jnp.concatenate(features, axis=-1)))


def negative_elbo(
    networks: modalities.Modalities,
    decoders: types.Params,
    key: types.Array,
    posterior: types.Gaussian,
    data: types.Batch,
    *,
    beta: types.Array | float,
    weights: dict[str, float],
) -> tuple[types.Array, base.Metrics]:
    """Returns a one-draw estimate of minus the ELBO of complete examples, `[B]`, and its terms' means.

    Args:
      networks: of the modalities.
      decoders: their decoders' parameters.
      key: of the draw.
      posterior: q(z | X), `[B, D]`.
      data: all modalities.
      beta: weight of the KL term.
      weights: lambda_j, by modality.
    """
    decoded = networks.decode(decoders, distributions.gaussian_sample(key, posterior))
    terms = objectives.log_likelihoods(networks.specs, decoded, networks.canonical(data))
    reconstruction = -sum(weights[name] * term for name, term in terms.items())
    kl = distributions.kl_to_standard_normal(posterior)
    metrics = {"kl": kl.mean(), **{f"log_likelihood/{name}": term.mean() for name, term in terms.items()}}
    return reconstruction + beta * kl, metrics
