"""What models have in common that have a joint encoder for all modalities and a Gaussian expert for each.

The joint encoder q(z | X) serves all modalities, q_j(z | x_j) one. For the subsets in between we take Bayes' rule for conditionally independent
modalities,

    q(z | x_S)  proportional to  prod_{j in S} q_j(z | x_j) / p(z)^(|S| - 1),

which is a Gaussian in closed form: each expert holds the prior once. MultiVae refuses such subsets (TELBO) or does not divide (JMVAE).
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

from jnf_jax import keys, types
from jnf_jax import specs as specs_lib
from jnf_jax.models import base, closed_form, joint, unimodal
from jnf_jax.networks import base as networks_base
from jnf_jax.networks import mlp, modalities
from jnf_jax.posteriors import gaussian


@dataclasses.dataclass(frozen=True)
class Parts:
    """What the functions below are made of; no parameters."""

    config: Any
    joint: joint.Encoder
    experts: unimodal.Encoders

    @property
    def modalities(self) -> modalities.Modalities:
        """The networks."""
        return self.experts.modalities


def make_parts(config: Any, specs: specs_lib.Specs, networks: Mapping[str, networks_base.Networks] | None) -> Parts:
    """Returns the encoders that a model's config describes; arguments and errors as in `unimodal.build`.

    Beside the fields named there the config has `latent_dim`, `joint_hidden` and `wide_experts`.
    """
    experts = unimodal.build(config, specs, networks, dim=config.latent_dim)
    trunk = mlp.MLP(hidden=config.joint_hidden)
    whole = joint.Encoder(modalities=experts.modalities, trunk=trunk, head=experts.head)
    return Parts(config=config, joint=whole, experts=experts)


def build(parts: Parts, stages: Sequence[base.Stage]) -> base.Model:
    """Returns the model."""
    networks, dim = parts.modalities, parts.config.latent_dim
    shared = closed_form.Parts(
        modalities=networks,
        latent_dim=dim,
        prior=closed_form.standard_prior(dim),
        encode=functools.partial(encode, parts),
        combine=combine,
        decode=lambda params, z: networks.decode(params["decoders"], z),
        encode_whole=lambda params, data: closed_form.gaussian_posterior(parts.joint.encode(params["joint"], data)),
    )
    return closed_form.build(parts.config, shared, functools.partial(init, parts), stages)


def init(parts: Parts, key: types.Array) -> types.Params:
    """Returns {"joint": .., "experts": .., "decoders": ..}."""
    return {
        "joint": parts.joint.init(key),
        "experts": parts.experts.init(key),
        "decoders": parts.modalities.init_decoders(keys.stream(key, "decoders"), parts.config.latent_dim),
    }


def encode(parts: Parts, params: types.Params, name: str, x: types.Array) -> types.Gaussian:
    """Returns q_j(z | x_j), `[B, D]`; no wider than the prior, or products would be improper, where the config does not let it."""
    expert = parts.experts.encode(params["experts"], name, x)
    return expert if parts.config.wide_experts else gaussian.confined(expert)


def combine(params: types.Params, experts: types.Gaussian, indices: types.Array) -> closed_form.Posterior:
    """Returns the product of the experts `[|S|, B, D]`."""
    del params
    return closed_form.gaussian_posterior(gaussian.product(experts, power=1 - len(indices)))
