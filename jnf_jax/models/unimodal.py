"""Encoders that see one modality each: what every model but a purely joint one starts from."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jnf_jax import keys, types
from jnf_jax import specs as specs_lib
from jnf_jax.models import base, closed_form
from jnf_jax.networks import base as networks_base
from jnf_jax.networks import modalities


@dataclasses.dataclass(frozen=True)
class Encoders:
    """An encoder and a head for every modality; params are {"encoders": modality -> .., "heads": modality -> ..}.

    Attributes:
      modalities: the networks.
      head: from features to location and scale, `[B, F]` -> `[B, D]` each.
    """

    modalities: modalities.Modalities
    head: networks_base.GaussianHead

    def init(self, key: types.Array) -> types.Params:
        """Returns the parameters."""
        encoders = self.modalities.init_encoders(keys.stream(key, "experts"))
        heads = {}
        for name in self.modalities.names:
            shape = self.modalities.features_shape(name)
            heads[name] = networks_base.init(self.head, keys.stream(key, f"head {name}"), shape)
        return {"encoders": encoders, "heads": heads}

    def encode(self, params: types.Params, name: str, x: types.Array) -> types.Gaussian:
        """Returns location and scale `[B, D]` of what one modality `[B, *shape]` says of the code."""
        features = self.modalities.features(params["encoders"], name, x)
        return self.head.apply(params["heads"][name], features)

    def encode_all(self, params: types.Params, data: types.Batch) -> types.Gaussian:
        """Returns location and scale `[M, B, D]` of all modalities in order."""
        each = [self.encode(params, name, data[name]) for name in self.modalities.names]
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)


def build(config: Any, specs: specs_lib.Specs, networks: Mapping[str, networks_base.Networks] | None, *, dim: int) -> Encoders:
    """Returns the encoders that a model's config describes.

    Args:
      config: with the fields `network`, `networks`, `precision` and `scale_transform`.
      specs: modality -> spec.
      networks: linen modules in place of the configured ones, by modality.
      dim: of all that one modality says of the codes.

    Raises:
      ValueError: if there are fewer than two modalities, or a network is given for an unknown one.
    """
    networks_of = modalities.build(specs, config.network, config.networks, networks or {}, precision=config.precision)
    head = networks_base.GaussianHead(dim=dim, scale_transform=config.scale_transform)
    return Encoders(modalities=networks_of, head=head)


def vae(
    config: Any,
    encoders: Encoders,
    stage: base.Stage,
    combine: Callable[..., closed_form.Posterior],
    *,
    prior: closed_form.Prior | None = None,
) -> base.Model:
    """Returns a model of these encoders, a decoder for every modality and one array of codes; params are {"experts": .., "decoders": ..}.

    Args:
      config: the model's; its `latent_dim` is D.
      encoders: of every modality.
      stage: the one of training.
      combine: (params, experts, indices) -> q(z | x_S), as in `closed_form.Parts`.
      prior: p(z); the standard normal where None.
    """
    networks = encoders.modalities

    def init(key: types.Array) -> types.Params:
        decoders = networks.init_decoders(keys.stream(key, "decoders"), config.latent_dim)
        return {"experts": encoders.init(key), "decoders": decoders}

    parts = closed_form.Parts(
        modalities=networks,
        latent_dim=config.latent_dim,
        prior=prior or closed_form.standard_prior(config.latent_dim),
        encode=lambda params, name, x: encoders.encode(params["experts"], name, x),
        combine=combine,
        decode=lambda params, z: networks.decode(params["decoders"], z),
    )
    return closed_form.build(config, parts, init, [stage])
