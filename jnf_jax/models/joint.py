"""A joint encoder, and the VAE on all modalities that it belongs to.

ELBO(X) = E_q(z|X)[ sum_j lambda_j log p(x_j | z) ] - beta KL( q(z|X) || p(z) )
"""

import dataclasses

import flax.linen as nn
import jax
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
      incomplete: whether examples may lack modalities (`types.MASKS`): the trunk then sees zeros for the features they lack, and M numbers
        more, 1 for each modality that is there and 0 for the others.
    """

    modalities: modalities.Modalities
    trunk: nn.Module
    head: networks_base.GaussianHead
    incomplete: bool = False

    def init(self, key: types.Array) -> types.Params:
        """Returns the parameters."""
        encoders = self.modalities.init_encoders(keys.stream(key, "joint"))
        found = [jax.ShapeDtypeStruct(self.modalities.features_shape(name), float) for name in self.modalities.names]
        shape = jax.eval_shape(self._joined, found, jax.ShapeDtypeStruct((len(found), 1), bool)).shape
        trunk = networks_base.init(self.trunk, keys.stream(key, "trunk"), shape)
        head = networks_base.init(self.head, keys.stream(key, "head"), networks_base.output_shape(self.trunk, shape))
        return {"encoders": encoders, "trunk": trunk, "head": head}

    def encode(self, params: types.Params, data: types.Batch) -> types.Gaussian:
        """Returns q(z | X), `[B, D]`; of an example that lacks modalities q(z | those it has)."""
        data, present = self.modalities.split(data)
        features = [self.modalities.features(params["encoders"], name, x) for name, x in data.items()]
        return self.head.apply(params["head"], self.trunk.apply(params["trunk"], self._joined(features, present)))

    def _joined(self, features: list[types.Array], present: types.Array) -> types.Array:
        if self.incomplete:
            features = [jnp.where(there[:, None], f, 0) for f, there in zip(features, present, strict=True)]
            features.append(present.T.astype(features[0].dtype))
        return jnp.concatenate(features, axis=-1)


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
    """Returns a one-draw estimate of minus the ELBO of what examples have, `[B]`, and its terms' means.

    Args:
      networks: of the modalities.
      decoders: their decoders' parameters.
      key: of the draw.
      posterior: q(z | X), `[B, D]`.
      data: all modalities, and the masks of examples that lack some.
      beta: weight of the KL term.
      weights: lambda_j, by modality.
    """
    decoded = networks.decode(decoders, distributions.gaussian_sample(key, posterior))
    data, present = networks.split(data)
    terms = objectives.log_likelihoods(networks.specs, decoded, networks.canonical(data))
    reconstruction = -objectives.weighted_sum(terms, weights, present)
    kl = distributions.kl_to_standard_normal(posterior)
    means = {
        f"log_likelihood/{name}": base.mean_of(term, there) for (name, term), there in zip(terms.items(), present, strict=True)
    }
    return reconstruction + beta * kl, {"kl": kl.mean(), **means}
