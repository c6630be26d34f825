"""TELBO, the VAE of the triple ELBO (Vedantam, Fischer, Huang & Murphy, 2018, arXiv 1705.10762).

With two modalities there are three ELBOs, of both and of each alone, all with the same decoders; with M there are M + 1:

    ELBO(X)   = E_q(z|X)    [ sum_j lambda_j log p(x_j | z) ] - beta KL( q(z|X)     || p(z) ),
    ELBO(x_j) = E_q_j(z|x_j)[       lambda_j log p(x_j | z) ] - beta KL( q_j(z|x_j) || p(z) ).

Were they added up, the decoders would serve the unimodal codes as well as the joint ones, of which the former know less. So training has two stages:

    `joint`    joint encoder and decoders maximise ELBO(X),
    `experts`  with the decoders frozen, every unimodal encoder maximises ELBO(x_j).

The second is the best fit of q_j(z | x_j) to the posterior under the decoders learnt, as log p(x_j) - ELBO(x_j) = KL( q_j || p(z|x_j) ). JMVAE and JNF
fit q_j to the joint posteriors instead, from the other side: there q_j covers all codes that x_j may have, here it may choose some.

Posteriors: the joint encoder for all modalities, q_j for one, `joint_experts` in between. In MultiVae 1.0.3 the second stage's KL has the
joint encoder's log variance in place of log sigma_j^2, so that nothing keeps sigma_j from vanishing; ours is the divergence.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import ClassVar, Literal

import jax

from jnf_jax import configs, distributions, keys, objectives, types
from jnf_jax import specs as specs_lib
from jnf_jax.models import base, joint, joint_experts
from jnf_jax.networks import base as networks_base
from jnf_jax.networks import conv, modalities


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(configs.Component):
    """TELBO.

    Attributes:
      latent_dim: D.
      beta: weight of all KL terms.
      rescale: whether each modality's likelihood is weighted by max_k dim(x_k) / dim(x_j).
      scale_transform: `softplus` or `exp`: how encoders make a scale positive.
      wide_experts: whether a unimodal posterior may be wider than the prior. Products of such experts can be improper, which then shows
        in `Info`. Off, an expert's precision is 1 + 1/s^2, s the encoder's scale, and every product is proper.
      network: encoder and decoder of every modality.
      networks: exceptions to `network`, by modality.
      precision: what these networks compute in, `float32` or `bfloat16`.
      joint_hidden: widths of the layers between the concatenated features and the joint posterior.
      NOT_OF_STAGE: stage -> the fields that it does not depend on.
    """

    NOT_OF_STAGE: ClassVar[Mapping[str, tuple[str, ...]]] = {"joint": ("wide_experts",)}

    latent_dim: int = 32
    beta: float = 1.0
    rescale: bool = False
    scale_transform: Literal["softplus", "exp"] = "softplus"
    wide_experts: bool = False
    network: configs.Component = conv.Config()
    networks: Mapping[str, configs.Component] = dataclasses.field(default_factory=dict)
    precision: modalities.Precision = "float32"
    joint_hidden: tuple[int, ...] = (512,)

    def __post_init__(self):
        super().__post_init__()
        base.check_settings(self)


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
    parts = joint_experts.make_parts(config, specs, networks)
    stages = (
        base.Stage(name="joint", trainable=("joint", "decoders"), loss=functools.partial(joint_loss, parts)),
        base.Stage(name="experts", trainable=("experts",), loss=functools.partial(expert_loss, parts), needs=("joint",)),
    )
    return joint_experts.build(parts, stages)


def joint_loss(
    parts: joint_experts.Parts, params: types.Params, key: types.Array, batch: types.Batch
) -> tuple[types.Array, base.Metrics]:
    """Returns - ELBO(X)."""
    weights = objectives.rescaling(parts.modalities.specs, enabled=parts.config.rescale)
    posterior = parts.joint.encode(params["joint"], batch)
    loss, metrics = joint.negative_elbo(
        parts.modalities, params["decoders"], key, posterior, batch, beta=parts.config.beta, weights=weights
    )
    return loss.mean(), metrics


def expert_loss(
    parts: joint_experts.Parts, params: types.Params, key: types.Array, batch: types.Batch
) -> tuple[types.Array, base.Metrics]:
    """Returns - sum_j ELBO(x_j); the decoders are those of stage 1."""
    networks, decoders = parts.modalities, jax.lax.stop_gradient(params["decoders"])
    weights = objectives.rescaling(networks.specs, enabled=parts.config.rescale)
    elbos = {}
    for name, x in networks.canonical({name: batch[name] for name in networks.names}).items():
        expert = joint_experts.encode(parts, params, name, batch[name])
        decoded = networks.decode_one(decoders, name, distributions.gaussian_sample(keys.stream(key, name), expert))
        likelihood = weights[name] * distributions.log_likelihood(networks.specs[name], decoded, x)
        elbos[name] = (likelihood - parts.config.beta * distributions.kl_to_standard_normal(expert)).mean()
    return -sum(elbos.values()), {f"elbo/{name}": elbo for name, elbo in elbos.items()}
