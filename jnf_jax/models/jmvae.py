"""JMVAE, the joint multimodal VAE (Suzuki, Nakayama & Matsuo, 2016, arXiv 1611.01891), in its variant JMVAE-kl.

A joint encoder q(z | X) is trained by the ELBO of all modalities. Unimodal encoders q_j(z | x_j) learn from it in the same stage:

    L = - E_q(z|X)[ sum_j lambda_j log p(x_j | z) ] + beta KL( q(z|X) || p(z) ) + alpha sum_j KL( q(z|X) || q_j(z|x_j) )

The last term bounds the variation of information between the modalities; a large alpha makes the unimodal encoders better and the
reconstructions worse, because the joint encoder pays for it too. All KL terms are weighted from 0 to 1 over the first steps (`warmup`).

Posteriors: the joint encoder for all modalities, q_j for one. The paper has two modalities and stops there. For a larger subset we
take Bayes' rule for conditionally independent modalities, q(z | x_S) proportional to prod_{j in S} q_j(z | x_j) / p(z)^(|S| - 1), which is a Gaussian
in closed form; nothing is sampled by MCMC. MultiVae multiplies the experts without dividing by the prior.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Literal

from jnf_jax import configs, distributions, keys, objectives, types
from jnf_jax import specs as specs_lib
from jnf_jax.models import base, closed_form, unimodal
from jnf_jax.models import joint as joint_lib
from jnf_jax.networks import base as networks_base
from jnf_jax.networks import conv, mlp, modalities
from jnf_jax.posteriors import gaussian


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


@dataclasses.dataclass(frozen=True)
class Parts:
    """What the functions below are made of; no parameters."""

    config: Config
    joint: joint_lib.Encoder
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
    networks_of = modalities.build(specs, config.network, config.networks, networks or {}, precision=config.precision)
    head = networks_base.GaussianHead(dim=config.latent_dim, scale_transform=config.scale_transform)
    parts = Parts(
        config=config,
        joint=joint_lib.Encoder(modalities=networks_of, trunk=mlp.MLP(hidden=config.joint_hidden), head=head),
        encoders=unimodal.Encoders(modalities=networks_of, head=head),
    )
    stage = base.Stage(
        name="vae",
        trainable=("joint", "experts", "decoders"),
        loss=functools.partial(loss, parts, 1.0),
        annealed=base.warmed_up(functools.partial(loss, parts), config.warmup),
    )
    shared = closed_form.Parts(
        modalities=networks_of,
        latent_dim=config.latent_dim,
        prior=closed_form.standard_prior(config.latent_dim),
        encode=functools.partial(encode, parts),
        combine=combine,
        decode=lambda params, z: networks_of.decode(params["decoders"], z),
        encode_whole=lambda params, data: closed_form.gaussian_posterior(parts.joint.encode(params["joint"], data)),
    )
    return closed_form.build(shared, functools.partial(init, parts), [stage])


def init(parts: Parts, key: types.Array) -> types.Params:
    """Returns {"joint": .., "experts": .., "decoders": ..}."""
    return {
        "joint": parts.joint.init(key),
        "experts": parts.encoders.init(key),
        "decoders": parts.encoders.modalities.init_decoders(keys.stream(key, "decoders"), parts.config.latent_dim),
    }


def encode(parts: Parts, params: types.Params, name: str, x: types.Array) -> types.Gaussian:
    """Returns q_j(z | x_j), `[B, D]`."""
    expert = parts.encoders.encode(params["experts"], name, x)
    return expert if parts.config.wide_experts else gaussian.confined(expert)


def combine(experts: types.Gaussian, indices: types.Array) -> closed_form.Posterior:
    """Returns the product of the experts `[|S|, B, D]`, each of which holds the prior once."""
    return closed_form.gaussian_posterior(gaussian.product(experts, power=1 - len(indices)))


def loss(
    parts: Parts, weight: types.Array | float, params: types.Params, key: types.Array, batch: types.Batch
) -> tuple[types.Array, base.Metrics]:
    """Returns L with all KL terms weighted by `weight` once more."""
    config, networks = parts.config, parts.encoders.modalities
    posterior = parts.joint.encode(params["joint"], batch)
    value, metrics = joint_lib.negative_elbo(
        networks, params["decoders"], key, posterior, batch,
        beta=weight * config.beta, weights=objectives.rescaling(networks.specs, enabled=config.rescale),
    )  # fmt: skip
    experts = {name: encode(parts, params, name, batch[name]) for name in networks.names}
    divergence = sum(distributions.kl_between(posterior, expert) for expert in experts.values())
    metrics = {**metrics, "kl_to_experts": divergence.mean()}
    return (value + weight * config.alpha * divergence).mean(), metrics
