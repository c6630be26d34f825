"""JMVAE, the joint multimodal VAE (Suzuki, Nakayama & Matsuo, 2016, arXiv 1611.01891), in its variant JMVAE-kl.

A joint encoder q(z | X) is trained by the ELBO of all modalities. Unimodal encoders q_j(z | x_j) learn from it in the same stage:

    L = - E_q(z|X)[ sum_j lambda_j log p(x_j | z) ] + beta KL( q(z|X) || p(z) ) + alpha sum_j KL( q(z|X) || q_j(z|x_j) )

The last term bounds the variation of information between the modalities; a large alpha makes the unimodal encoders better and the
reconstructions worse, because the joint encoder pays for it too. All KL terms are weighted from 0 to 1 over the first steps (`warmup`).

Posteriors: the joint encoder for all modalities, q_j for one. The paper has two modalities and stops there; `joint_experts` has the product for
larger subsets. Nothing is sampled by MCMC.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Literal

from jnf_jax import configs, distributions, objectives, types
from jnf_jax import specs as specs_lib
from jnf_jax.models import base, joint, joint_experts
from jnf_jax.networks import base as networks_base
from jnf_jax.networks import conv, modalities


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(configs.Component):
    """JMVAE.

    Attributes:
      latent_dim: D.
      beta: weight of the joint encoder's KL term.
      alpha: weight of the KL terms between the joint and the unimodal encoders; 0.1 in the paper.
      warmup: share of the steps over which all KL terms rise to their weights; 0: they have them from the start.
      rescale: whether each modality's likelihood is weighted by max_k dim(x_k) / dim(x_j).
      scale_transform: `softplus` or `exp`: how encoders make a scale positive.
      wide_experts: whether a unimodal posterior may be wider than the prior, as in the paper. Products of such experts can be improper,
        which then shows in `Info`. Off, an expert's precision is 1 + 1/s^2, s the encoder's scale, and every product is proper.
      network: encoder and decoder of every modality.
      networks: exceptions to `network`, by modality.
      precision: what these networks compute in, `float32` or `bfloat16`.
      joint_hidden: widths of the layers between the concatenated features and the joint posterior.
    """

    latent_dim: int = 32
    beta: float = 1.0
    alpha: float = 0.1
    warmup: float = 0.1
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
        if not self.alpha > 0:
            raise ValueError(f"Expected a positive alpha, got {self.alpha}.")


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
    stage = base.Stage(
        name="vae",
        trainable=("joint", "experts", "decoders"),
        loss=functools.partial(loss, parts, 1.0),
        annealed=base.warmed_up(functools.partial(loss, parts), config.warmup),
        annealing=config.warmup,
    )
    return joint_experts.build(parts, [stage])


def loss(
    parts: joint_experts.Parts, weight: types.Array | float, params: types.Params, key: types.Array, batch: types.Batch
) -> tuple[types.Array, base.Metrics]:
    """Returns L with all KL terms weighted by `weight` once more."""
    config, networks = parts.config, parts.modalities
    posterior = parts.joint.encode(params["joint"], batch)
    value, metrics = joint.negative_elbo(
        networks, params["decoders"], key, posterior, batch,
        beta=weight * config.beta, weights=objectives.rescaling(networks.specs, enabled=config.rescale),
    )  # fmt: skip
    experts = {name: joint_experts.encode(parts, params, name, batch[name]) for name in networks.names}
    divergence = sum(distributions.kl_between(posterior, expert) for expert in experts.values())
    metrics = {**metrics, "kl_to_experts": divergence.mean()}
    return (value + weight * config.alpha * divergence).mean(), metrics
