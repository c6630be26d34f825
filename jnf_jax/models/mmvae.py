"""MMVAE, the multimodal VAE with a mixture of experts (Shi et al., 2019, arXiv 1911.03393).

The posterior is the equal mixture of the unimodal ones, q(z | x_S) = 1/|S| sum_{j in S} q_j(z | x_j), and every modality is decoded
from a draw of every component. Stratified importance sampling gives the objective, with K draws z_jk of each q_j:

    L = - 1/M sum_j E[ log 1/K sum_k w(z_jk) ],    log w(z) = sum_i lambda_i log p(x_i | z) + beta ( log p(z) - log q(z | X) )

At lambda = beta = 1 it bounds the likelihood: by Jensen's inequality for the logarithms and for the mean over j,

    ELBO (K = 1)  <=  - L(K)  <=  E[ log 1/(MK) sum_jk w(z_jk) ]  <=  log p(X),    as 1/M sum_j E_q_j[ w ] = E_q[ w ] = p(X).

This is the paper's "looser" bound, the one its experiments train; as K grows it stays below log p(X) where components do not
each cover the posterior. Its gradient is the plain one (`iwae`) or the doubly reparameterised one (`dreg`, `objectives.stratified_dreg`). The
authors' and MultiVae's DReG drops two terms that a mixture needs, which biases it where posteriors overlap; ours keeps them.

Prior and posteriors are Laplace distributions, as in the paper, or Gaussians. The paper also normalises a posterior's scales to a fixed sum; we do not.

In an example that lacks modalities, the mixture, the sum over j and the likelihoods are those of the modalities that are there.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Literal

import jax

from jnf_jax import configs, distributions, objectives, types
from jnf_jax import specs as specs_lib
from jnf_jax.models import base, closed_form, unimodal
from jnf_jax.networks import base as networks_base
from jnf_jax.networks import conv, modalities
from jnf_jax.posteriors import mixture as mixtures


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(configs.Component):
    """MMVAE.

    Attributes:
      latent_dim: D.
      beta: weight of log p(z) - log q(z | X).
      num_importance: K; 1 gives an ELBO.
      gradient: `dreg`, doubly reparameterised, or `iwae`, the plain one.
      family: of prior and posteriors, `laplace` or `gaussian`.
      rescale: whether each modality's likelihood is weighted by max_k dim(x_k) / dim(x_j).
      scale_transform: `softplus` or `exp`: how encoders make a scale positive.
      network: encoder and decoder of every modality.
      networks: exceptions to `network`, by modality.
      precision: what these networks compute in, `float32` or `bfloat16`.
    """

    latent_dim: int = 32
    beta: float = 1.0
    num_importance: int = 10
    gradient: Literal["dreg", "iwae"] = "dreg"
    family: Literal["laplace", "gaussian"] = "laplace"
    rescale: bool = False
    scale_transform: Literal["softplus", "exp"] = "softplus"
    network: configs.Component = conv.Config()
    networks: Mapping[str, configs.Component] = dataclasses.field(default_factory=dict)
    precision: modalities.Precision = "float32"

    def __post_init__(self):
        super().__post_init__()
        base.check_settings(self)
        if self.num_importance < 1:
            raise ValueError(f"Expected a num_importance of at least 1, got {self.num_importance}.")


@dataclasses.dataclass(frozen=True)
class Parts:
    """What the functions below are made of; no parameters."""

    config: Config
    encoders: unimodal.Encoders
    prior: closed_form.Prior


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
    prior = closed_form.standard_prior(config.latent_dim, family=config.family)
    parts = Parts(config=config, encoders=encoders, prior=prior)
    stage = base.Stage(name="vae", trainable=("experts", "decoders"), loss=functools.partial(loss, parts), incomplete=True)
    combine = lambda params, experts, indices: closed_form.mixture_posterior(mixtures.uniform(experts), family=config.family)
    return unimodal.vae(config, encoders, stage, combine, prior=prior)


def loss(parts: Parts, params: types.Params, key: types.Array, batch: types.Batch) -> tuple[types.Array, base.Metrics]:
    """Returns L."""
    config = parts.config
    data, present = parts.encoders.modalities.split(batch)
    experts = parts.encoders.encode_all(params["experts"], data)
    draw = lambda key: distributions.family_sample(config.family, key, experts)
    z = jax.vmap(draw)(jax.random.split(key, config.num_importance))  # [K, M, B, D]
    weigh = functools.partial(log_weight, parts, parts.encoders.modalities.canonical(data), present)
    coefficients = present / present.sum(0) / present.shape[1]
    if config.gradient == "iwae":
        bound = objectives.stratified_bound(weigh(z, params["decoders"], experts), coefficients)
    else:
        bound = objectives.stratified_dreg(
            weigh,
            z,
            params["decoders"],
            experts,
            coefficients=coefficients,
            present=present,
            log_components=lambda z, experts: mixtures.component_log_probs(experts, z, family=config.family),
            scales=lambda share, own: 1 - config.beta * (1 - share) * own,
            beta=config.beta,
        )
    return -bound, {"bound": bound}


def log_weight(
    parts: Parts,
    data: types.Batch,
    present: types.Array,
    z: types.Array,
    decoders: types.Params,
    experts: types.Gaussian,
) -> types.Array:
    """Returns log w(z) `[K, M, B]` at z `[K, M, B, D]`; `data` is canonical."""
    config, networks = parts.config, parts.encoders.modalities
    weights = objectives.rescaling(networks.specs, enabled=config.rescale)
    terms = objectives.log_likelihoods(networks.specs, networks.decode(decoders, z), data)
    log_q = mixtures.log_prob(mixtures.uniform(experts, present), z, family=config.family)
    return objectives.weighted_sum(terms, weights, present) + config.beta * (parts.prior.log_prob({}, z) - log_q)
