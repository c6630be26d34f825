"""MVTCAE, the multi-view total correlation autoencoder (Hwang et al., 2021).

The code is to explain what makes the modalities depend on each other: the reduction of their total correlation when z is known,

    TC(X; Z) = sum_j I(X_j; Z) - I(X; Z)                                                              (1)
             = (M-1)/M sum_j I(X_j; Z) - 1/M sum_j I(X_-j; Z | X_j)                                   (2)

The second line follows from I(X; Z) = I(X_j; Z) + I(X_-j; Z | X_j), averaged over j. Each information has a variational bound:

    I(X_j; Z) >= E[ log p(x_j | z) ] + H(X_j),     I(X; Z) <= KL( q(z|X) || p(z) ),
    I(X_-j; Z | X_j) <= KL( q(z|X) || q_j(z|x_j) ).

The loss is minus the bound of (1 - alpha) (1) + alpha (2), with beta on the KL terms: a variational information bottleneck (VIB) and
a conditional one (CVIB),

    L = - (M - alpha) / M  E_q(z|X)[ sum_j lambda_j log p(x_j | z) ]
        + beta [ (1 - alpha) KL( q(z|X) || p(z) ) + alpha / M sum_j KL( q(z|X) || q_j(z|x_j) ) ].

q(z | x_S) is proportional to prod_{j in S} q_j(z | x_j), a Gaussian in closed form, without the prior. The CVIB terms pull each q_j
towards it, so that one modality alone is a good posterior too.

In an example that lacks modalities, the product, the likelihoods and the CVIB terms are those of the modalities that are there; M stays, as
in MultiVae. MultiVae's default alpha is 0.1; the paper's image experiments have 5/6, ours.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Literal

import jax.numpy as jnp

from jnf_jax import configs, distributions, objectives, types
from jnf_jax import specs as specs_lib
from jnf_jax.models import base, closed_form, unimodal
from jnf_jax.networks import base as networks_base
from jnf_jax.networks import conv, modalities
from jnf_jax.posteriors import gaussian


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(configs.Component):
    """MVTCAE.

    Attributes:
      latent_dim: D.
      alpha: share of the conditional bottleneck, in [0, 1]; at 0 the loss is an ELBO of the product.
      beta: weight of all KL terms.
      rescale: whether each modality's likelihood is weighted by max_k dim(x_k) / dim(x_j).
      scale_transform: `softplus` or `exp`: how encoders make a scale positive.
      network: encoder and decoder of every modality.
      networks: exceptions to `network`, by modality.
      precision: what these networks compute in, `float32` or `bfloat16`.
    """

    latent_dim: int = 32
    alpha: float = 5 / 6
    beta: float = 2.5
    rescale: bool = False
    scale_transform: Literal["softplus", "exp"] = "softplus"
    network: configs.Component = conv.Config()
    networks: Mapping[str, configs.Component] = dataclasses.field(default_factory=dict)
    precision: modalities.Precision = "float32"

    def __post_init__(self):
        super().__post_init__()
        base.check_settings(self)
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"Expected an alpha in [0, 1], got {self.alpha}.")


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
    posterior = gaussian.product(experts, power=0, present=present)
    decoded = networks.decode(params["decoders"], distributions.gaussian_sample(key, posterior))
    terms = objectives.log_likelihoods(networks.specs, decoded, networks.canonical(data))
    reconstruction = -objectives.weighted_sum(terms, weights, present)
    vib = distributions.kl_to_standard_normal(posterior)
    cvib = jnp.where(present, distributions.kl_between(posterior, experts), 0).sum(0)
    num, alpha = len(networks.names), config.alpha
    value = (num - alpha) / num * reconstruction + config.beta * ((1 - alpha) * vib + alpha / num * cvib)
    metrics = {"kl": vib.mean(), "kl_to_experts": cvib.mean()}
    metrics |= {f"log_likelihood/{name}": base.mean_of(terms[name], present[j]) for j, name in enumerate(networks.names)}
    return value.mean(), metrics
