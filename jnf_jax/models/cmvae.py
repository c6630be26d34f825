"""CMVAE, the clustering multimodal VAE (Palumbo, Manduchi, Laguna, Chopard & Vogt, 2024), without its diffusion decoders.

It is MMVAE+ with clusters in the shared code: c ~ pi, u | c ~ N(mu_c, I) or Laplace(mu_c, 1), pi and mu_c learnt. The clusters join the bound with
q(c | u), which the paper takes to be the posterior, p(c | u) = pi_c p(u | c) / sum_c' pi_c' p(u | c'). Then

    sum_c q(c | u) ( log pi_c + log p(u | c) - log q(c | u) )  =  log sum_c pi_c p(u | c)  =  log p(u):

the expectation over clusters is tight, and the objective is that of `private_mixture` with a mixture for p(u). z is {"shared": [.., D],
"private": modality -> [.., D_p]}. `cluster_log_probs` gives log p(c | u).

MultiVae adds 1e-20 to q(c | u), and leaves out the same terms of its DReG gradient as in MMVAE+.
"""

import dataclasses
from collections.abc import Mapping
from typing import Literal

import jax
import jax.numpy as jnp

from jnf_jax import configs, distributions, keys, types
from jnf_jax import specs as specs_lib
from jnf_jax.models import base, closed_form, private_mixture
from jnf_jax.networks import base as networks_base
from jnf_jax.networks import conv, modalities


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(configs.Component):
    """CMVAE.

    Attributes:
      latent_dim: D, of the shared code.
      private_dim: D_p, of each modality's private code.
      num_clusters: C, of the shared code's prior; clusters that the data do not need lose their weight.
      beta: weight of the terms of priors and posteriors.
      num_importance: K; 1 gives an ELBO.
      gradient: `dreg`, doubly reparameterised, or `iwae`, the plain one.
      family: of priors and posteriors, `laplace` or `gaussian`.
      rescale: whether each modality's likelihood is weighted by max_k dim(x_k) / dim(x_j).
      scale_transform: `softplus` or `exp`: how encoders make a scale positive.
      network: encoder and decoder of every modality.
      networks: exceptions to `network`, by modality.
      precision: what these networks compute in, `float32` or `bfloat16`.
    """

    latent_dim: int = 32
    private_dim: int = 32
    num_clusters: int = 10
    beta: float = 1.0
    num_importance: int = 1
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
        for name in ("private_dim", "num_clusters", "num_importance"):
            if getattr(self, name) < 1:
                raise ValueError(f"Expected a {name} of at least 1, got {getattr(self, name)}.")


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
    prior = clusters(config)
    return private_mixture.build(config, specs, networks, prior=prior, init_prior=lambda key: init_clusters(config, key))


def init_clusters(config: Config, key: types.Array) -> types.Params:
    """Returns {"logits": of pi `[C]`, "loc": mu `[C, D]`}, the latter uniform in [-1, 1]."""
    loc = jax.random.uniform(key, (config.num_clusters, config.latent_dim), minval=-1.0, maxval=1.0)
    return {"logits": jnp.zeros(config.num_clusters), "loc": loc}


def clusters(config: Config) -> closed_form.Prior:
    """Returns p(u)."""

    def sample(params, key, num):
        choice = jax.random.categorical(keys.stream(key, "cluster"), params["logits"], shape=(num,))
        loc = params["loc"][choice]
        return distributions.family_sample(config.family, key, types.Gaussian(loc, jnp.ones_like(loc)))

    def log_prob(params, u):
        return jax.nn.logsumexp(joint_log_probs(config, params, u), axis=-1)

    return closed_form.Prior(sample, log_prob)


def joint_log_probs(config: Config, params: types.Params, u: types.Array) -> types.Array:
    """Returns log pi_c + log p(u | c) `[.., C]` at u `[.., D]`; params are the prior's."""
    loc = params["loc"]
    each = distributions.family_log_prob(config.family, types.Gaussian(loc, jnp.ones_like(loc)), u[..., None, :])
    return jax.nn.log_softmax(params["logits"]) + each


def cluster_log_probs(config: Config, params: types.Params, u: types.Array) -> types.Array:
    """Returns log p(c | u) `[.., C]` at u `[.., D]`; params are the model's."""
    return jax.nn.log_softmax(joint_log_probs(config, params["prior"], u), axis=-1)
