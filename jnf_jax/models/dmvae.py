"""DMVAE, the VAE of disentangled private and shared codes (Lee & Pavlovic, 2021, arXiv 2012.13024).

A modality is decoded from the shared code u and a private code w_j of its own, p(X, u, w) = p(u) prod_j p(w_j) p(x_j | u, w_j), with standard priors. The shared
code is inferred from all modalities by a product of experts that holds the prior once, as in MVAE, or from one of them:

    q(u | X)  proportional to  p(u) prod_j q_j(u | x_j),    q(w_j | x_j) always from x_j itself.

Whichever q(u) is taken, the same expression bounds log p(X) from below (at lambda = beta = 1), as an ELBO holds for any density of the codes:

    ELBO[q] = E_q(u) E_q(w|X)[ sum_j lambda_j log p(x_j | u, w_j) ] - beta KL( q(u) || p(u) ) - beta_p sum_j KL( q(w_j|x_j) || p(w_j) ).

The loss adds all of them up, the joint one and M that decode everything from the shared code of one modality:

    L = - ELBO[ q(u|X) ] - sum_k ELBO[ q_k(u|x_k) ].

What x_j shows and no other modality does would cost every ELBO[q_k], k != j, if u had to carry it; it goes into w_j.

z is {"shared": [.., D], "private": modality -> [.., D_p]}. Given x_S, u comes from the product over S, or from q_j itself where x_j alone is
observed, which is what the loss trains; MultiVae multiplies by the prior there too. Private codes of what is not observed come from the prior.

In an example that lacks modalities, products, ELBOs, likelihoods and private codes are those of the modalities that are there.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Literal

import jax
import jax.numpy as jnp

from jnf_jax import configs, distributions, objectives, types
from jnf_jax import specs as specs_lib
from jnf_jax.models import base, closed_form, private_codes, unimodal
from jnf_jax.networks import base as networks_base
from jnf_jax.networks import conv, modalities
from jnf_jax.posteriors import gaussian


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(configs.Component):
    """DMVAE.

    Attributes:
      latent_dim: D, of the shared code.
      private_dim: D_p, of each modality's private code.
      beta: weight of the shared code's KL term.
      private_beta: beta_p, weight of the private codes' KL terms.
      rescale: whether each modality's likelihood is weighted by max_k dim(x_k) / dim(x_j).
      scale_transform: `softplus` or `exp`: how encoders make a scale positive.
      network: encoder and decoder of every modality.
      networks: exceptions to `network`, by modality.
      precision: what these networks compute in, `float32` or `bfloat16`.
    """

    latent_dim: int = 32
    private_dim: int = 32
    beta: float = 1.0
    private_beta: float = 1.0
    rescale: bool = False
    scale_transform: Literal["softplus", "exp"] = "softplus"
    network: configs.Component = conv.Config()
    networks: Mapping[str, configs.Component] = dataclasses.field(default_factory=dict)
    precision: modalities.Precision = "float32"

    def __post_init__(self):
        super().__post_init__()
        base.check_settings(self)
        if self.private_dim < 1:
            raise ValueError(f"Expected a private_dim of at least 1, got {self.private_dim}.")
        if not self.private_beta > 0:
            raise ValueError(f"Expected a positive private_beta, got {self.private_beta}.")


@dataclasses.dataclass(frozen=True)
class Parts:
    """What the functions below are made of; no parameters."""

    config: Config
    encoders: unimodal.Encoders
    codes: private_codes.Layout


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
    encoders = unimodal.build(config, specs, networks, dim=config.latent_dim + config.private_dim)
    codes = private_codes.Layout(encoders.modalities, config.latent_dim, config.private_dim)
    parts = Parts(config=config, encoders=encoders, codes=codes)
    stage = base.Stage(name="vae", trainable=("experts", "decoders"), loss=functools.partial(loss, parts), incomplete=True)
    shared = closed_form.Parts(
        modalities=encoders.modalities,
        latent_dim=codes.latent_dim,
        prior=codes.prior(),
        encode=lambda params, name, x: codes.split(encoders.encode(params["experts"], name, x)),
        combine=functools.partial(combine, parts),
        decode=lambda params, z: codes.decode(params["decoders"], z),
    )
    return closed_form.build(config, shared, functools.partial(init, parts), [stage])


def init(parts: Parts, key: types.Array) -> types.Params:
    """Returns {"experts": .., "decoders": ..}."""
    return {"experts": parts.encoders.init(key), "decoders": parts.codes.init_decoders(key)}


def combine(
    parts: Parts, params: types.Params, encodings: dict[str, types.Gaussian], indices: types.Array
) -> closed_form.Posterior:
    """Returns q(u, w | x_S) of the encodings `[|S|, B, ..]`."""
    del params
    shared = gaussian.product(encodings["shared"], power=int(len(indices) > 1))
    return parts.codes.posterior(closed_form.gaussian_posterior(shared), encodings["private"], indices)


def loss(parts: Parts, params: types.Params, key: types.Array, batch: types.Batch) -> tuple[types.Array, base.Metrics]:
    """Returns L."""
    config, networks = parts.config, parts.encoders.modalities
    weights = objectives.rescaling(networks.specs, enabled=config.rescale)
    data, present = networks.split(batch)
    experts = parts.codes.split(parts.encoders.encode_all(params["experts"], data))
    joint = gaussian.product(experts["shared"], power=1, present=present)
    shared = jax.tree.map(lambda one, each: jnp.concatenate([one[None], each]), joint, experts["shared"])  # [1 + M, B, D]
    chosen = jnp.concatenate([jnp.ones_like(present[:1]), present])  # [1 + M, B] the ELBOs that there are

    draws = jax.vmap(functools.partial(draw, parts, experts["private"]))(jax.random.split(key, len(chosen)), shared)
    terms = objectives.log_likelihoods(
        networks.specs, parts.codes.decode(params["decoders"], draws), networks.canonical(data)
    )  # [1 + M, B] each
    private_kl = jnp.where(present, distributions.kl_to_standard_normal(experts["private"]), 0).sum(0)
    kl = distributions.kl_to_standard_normal(shared)
    elbos = objectives.weighted_sum(terms, weights, present) - config.beta * kl - config.private_beta * private_kl
    metrics = {"elbo": elbos[0].mean(), "kl": kl[0].mean(), "private_kl": private_kl.mean()}
    metrics |= {f"log_likelihood/{name}": base.mean_of(term[0], present[j]) for j, (name, term) in enumerate(terms.items())}
    return -jnp.where(chosen, elbos, 0).sum(0).mean(), metrics


def draw(parts: Parts, private: types.Gaussian, key: types.Array, shared: types.Gaussian) -> private_codes.Codes:
    """Returns codes of `shared` `[B, D]` and of `private` `[M, B, D_p]`."""
    shared_key, private_key = jax.random.split(key)
    w = distributions.gaussian_sample(private_key, private)
    u = distributions.gaussian_sample(shared_key, shared)
    return {"shared": u, "private": {name: w[j] for j, name in enumerate(parts.codes.names)}}
