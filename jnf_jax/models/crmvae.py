"""CRMVAE, the coordinated VAE with unimodal reconstructions (Suzuki & Matsuo, openreview Rn8u4MYgeNJ).

Coordination: unimodal posteriors are pulled towards the joint one, q(z | X) proportional to prod_j q_j(z | x_j), by divergences (JMVAE and MVTCAE are
of this kind). Let the prior of an example be the equal mixture of p(z) and of all q_j(z | x_j). As KL is convex in its second argument,

    KL( q(z|X) || 1/(M+1) ( p + sum_j q_j ) )  <=  1/(M+1) ( KL( q(z|X) || p(z) ) + sum_j KL( q(z|X) || q_j(z|x_j) ) ) =: D,

and E_q(z|X)[ sum_j log p(x_j | z) ] - D is below the ELBO under that prior. Alone it leaves q_j free to be useless as a code: nothing is decoded from
it. CRMVAE also decodes every modality from its own posterior, and averages the two reconstructions:

    R = - 1/2 sum_j ( E_q(z|X)[ lambda_j log p(x_j | z) ] + E_q_j(z|x_j)[ lambda_j log p(x_j | z) ] ),      L = R / (M+1) + beta D.

R's factor 1 / (M+1) is MultiVae's: beta = 1 weighs a nat of R as one of the sum of the divergences, and our code has the same beta.

q(z | x_S) is proportional to prod_{j in S} q_j(z | x_j), a Gaussian in closed form, without the prior. In an example that lacks modalities, the product,
likelihoods and divergences are those of the modalities that are there; M stays, as in MultiVae.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Literal

import jax
import jax.numpy as jnp

from jnf_jax import configs, distributions, objectives, types
from jnf_jax import specs as specs_lib
from jnf_jax.models import base, closed_form, unimodal
from jnf_jax.networks import base as networks_base
from jnf_jax.networks import conv, modalities
from jnf_jax.posteriors import gaussian


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(configs.Component):
    """CRMVAE.

    Attributes:
      latent_dim: D.
      beta: weight of the divergences.
      rescale: whether each modality's likelihood is weighted by max_k dim(x_k) / dim(x_j).
      scale_transform: `softplus` or `exp`: how encoders make a scale positive.
      network: encoder and decoder of every modality.
      networks: exceptions to `network`, by modality.
      precision: what these networks compute in, `float32` or `bfloat16`.
    """

    latent_dim: int = 32
    beta: float = 2.5
    rescale: bool = False
    scale_transform: Literal["softplus", "exp"] = "softplus"
    network: configs.Component = conv.Config()
    networks: Mapping[str, configs.Component] = dataclasses.field(default_factory=dict)
    precision: modalities.Precision = "float32"

    def __post_init__(self):
        super().__post_init__()
        base.check_settings(self)


@dataclasses.dataclass(frozen=True)
class Parts:
    """What the functions below are made of; no parameters."""

    config: Config
    encoders: unimodal.Encoders


def build(
    config: Config, specs: specs_lib.Specs, *, networks: Mapping[str, networks_base.Networks] | None = None
) -> base.Model:
    """Returns the model.

    Args:
      config: its settings.
      specs: modality -> spec.
      networks: linen modules of your own in place of the configured ones, by modality.

    Raises:
      ValueError: if there are fewer than two modalities, or a network is given for an unknown one.
    """
    encoders = unimodal.build(config, specs, networks, dim=config.latent_dim)
    parts = Parts(config=config, encoders=encoders)
    stage = base.Stage(name="vae", trainable=("experts", "decoders"), loss=functools.partial(loss, parts), incomplete=True)
    combine = lambda params, experts, indices: closed_form.gaussian_posterior(gaussian.product(experts, power=0))
    return unimodal.vae(config, encoders, stage, combine)


def loss(parts: Parts, params: types.Params, key: types.Array, batch: types.Batch) -> tuple[types.Array, base.Metrics]:
    """Returns L."""
    config, networks = parts.config, parts.encoders.modalities
    weights = objectives.rescaling(networks.specs, enabled=config.rescale)
    data, present = networks.split(batch)
    experts = parts.encoders.encode_all(params["experts"], data)
    joint = gaussian.product(experts, power=0, present=present)
    joint_key, unimodal_key = jax.random.split(key)
    from_joint = distributions.gaussian_sample(joint_key, joint)
    from_own = distributions.gaussian_sample(unimodal_key, experts)  # [M, B, D]
    both = {
        name: networks.decode_one(params["decoders"], name, jnp.stack([from_joint, from_own[j]]))
        for j, name in enumerate(networks.names)
    }
    terms = objectives.log_likelihoods(networks.specs, both, networks.canonical(data))  # [2, B] each
    reconstruction = -objectives.weighted_sum(terms, weights, present).mean(0)
    kl = distributions.kl_to_standard_normal(joint)
    to_experts = jnp.where(present, distributions.kl_between(joint, experts), 0).sum(0)
    value = (reconstruction + config.beta * (kl + to_experts)) / (len(networks.names) + 1)
    metrics = {"kl": kl.mean(), "kl_to_experts": to_experts.mean()}
    metrics |= {f"log_likelihood/{name}": base.mean_of(term[0], present[j]) for j, (name, term) in enumerate(terms.items())}
    return value.mean(), metrics
