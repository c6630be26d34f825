"""MVAE, the multimodal VAE with a product of experts (Wu & Goodman, 2018, arXiv 1802.05335).

Where the modalities are independent given z, Bayes' rule gives the posterior of any subset as a product in which each modality contributes a
likelihood term. Modelling that term by a Gaussian, the encoder's output, keeps the product in closed form:

    q(z | x_S)  proportional to  p(z) prod_{j in S} N(z; mu_j(x_j), diag sigma_j(x_j)^2)

Trained on complete examples alone, such encoders need not work apart. So the loss adds ELBOs of parts of each example,

    L = - ELBO(X) - sum_j ELBO(x_j) - sum_{i=1..k} ELBO(x_{S_i}),
    ELBO(x_S) = E_q(z|x_S)[ sum_{j in S} lambda_j log p(x_j | z) ] - beta KL( q(z|x_S) || p(z) ),

with k subsets S_i of 2 to M - 1 modalities, drawn anew for every example. beta rises from 0 over the first steps (`warmup`), as in the paper. MultiVae draws one
set of subsets for a whole batch, and none by default.

In an example that lacks modalities every ELBO is that of the part of its subset that is there; that of nothing is 0.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from jnf_jax import configs, distributions, objectives, subsets, types
from jnf_jax import specs as specs_lib
from jnf_jax.models import base, closed_form, unimodal
from jnf_jax.networks import base as networks_base
from jnf_jax.networks import conv, modalities
from jnf_jax.posteriors import gaussian


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(configs.Component):
    """MVAE.

    Attributes:
      latent_dim: D.
      beta: weight of the KL terms.
      warmup: share of the steps over which beta rises from 0; 0: it is there from the start.
      subsampling: whether the loss has ELBOs beside the joint one.
      num_subsets: k, random subsets of an example; none exist with two modalities.
      rescale: whether each modality's likelihood is weighted by max_k dim(x_k) / dim(x_j).
      scale_transform: `softplus` or `exp`: how encoders make a scale positive.
      network: encoder and decoder of every modality.
      networks: exceptions to `network`, by modality.
      precision: what these networks compute in, `float32` or `bfloat16`.
    """

    latent_dim: int = 32
    beta: float = 1.0
    warmup: float = 0.1
    subsampling: bool = True
    num_subsets: int = 1
    rescale: bool = False
    scale_transform: Literal["softplus", "exp"] = "softplus"
    network: configs.Component = conv.Config()
    networks: Mapping[str, configs.Component] = dataclasses.field(default_factory=dict)
    precision: modalities.Precision = "float32"

    def __post_init__(self):
        super().__post_init__()
        base.check_settings(self)
        if self.num_subsets < 0:
            raise ValueError(f"Expected a num_subsets of at least 0, got {self.num_subsets}.")


@dataclasses.dataclass(frozen=True)
class Parts:
    """What the functions below are made of; no parameters."""

    config: Config
    encoders: unimodal.Encoders

    @property
    def table(self) -> np.ndarray:
        """The subsets of 2 to M - 1 modalities, `[N, M]` bool."""
        names = self.encoders.modalities.names
        return np.asarray([[n in subset for n in names] for subset in subsets.proper(names) if len(subset) > 1], bool)


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
    stage = base.Stage(
        name="vae",
        trainable=("experts", "decoders"),
        loss=functools.partial(loss, parts, 1.0),
        annealed=base.warmed_up(functools.partial(loss, parts), config.warmup),
        annealing=config.warmup,
        incomplete=True,
    )
    combine = lambda params, experts, indices: closed_form.gaussian_posterior(gaussian.product(experts, power=1))
    return unimodal.vae(config, encoders, stage, combine)


def loss(
    parts: Parts, weight: types.Array | float, params: types.Params, key: types.Array, batch: types.Batch
) -> tuple[types.Array, base.Metrics]:
    """Returns L with the KL terms weighted by `weight` once more."""
    config, networks = parts.config, parts.encoders.modalities
    subset_key, joint_key, unimodal_key = jax.random.split(key, 3)
    data, present = networks.split(batch)
    experts = parts.encoders.encode_all(params["experts"], data)
    chosen = present[None]
    if config.subsampling:
        chosen = jnp.concatenate([chosen, present & draw_subsets(parts, subset_key, present.shape[1])])
    options = {"beta": weight * config.beta}
    elbos, metrics = subset_elbos(parts, params, joint_key, experts, data, chosen, **options)
    total = elbos.sum(0)
    if config.subsampling:
        total += unimodal_elbos(parts, params, unimodal_key, experts, data, present, **options).sum(0)
    return -total.mean(), {"elbo": elbos[0].mean(), **metrics}


def draw_subsets(parts: Parts, key: types.Array, size: int) -> types.Array:
    """Returns k random subsets for each of `size` examples, `[k, M, B]` bool."""
    table = jnp.asarray(parts.table)
    if not len(table):
        return jnp.zeros((0, len(parts.encoders.modalities.names), size), bool)
    return table[jax.random.randint(key, (parts.config.num_subsets, size), 0, len(table))].swapaxes(1, 2)


def subset_elbos(
    parts: Parts,
    params: types.Params,
    key: types.Array,
    experts: types.Gaussian,
    data: types.Batch,
    chosen: types.Array,
    *,
    beta,
) -> tuple[types.Array, base.Metrics]:
    """Returns one-draw estimates of the ELBO of parts of each example, `[T, B]`, and the terms' means of the first.

    Args:
      parts: of the model.
      params: its parameters.
      key: of the draws.
      experts: `[M, B, D]`.
      data: all modalities.
      chosen: `[T, M, B]` bool: the modalities that each ELBO is of.
      beta: weight of the KL term.
    """
    networks = parts.encoders.modalities
    weights = objectives.rescaling(networks.specs, enabled=parts.config.rescale)
    posterior = jax.vmap(lambda subset: gaussian.product(experts, power=1, present=subset))(chosen)
    decoded = networks.decode(params["decoders"], distributions.gaussian_sample(key, posterior))
    terms = objectives.log_likelihoods(networks.specs, decoded, networks.canonical(data))
    kl = distributions.kl_to_standard_normal(posterior)
    metrics = {
        "kl": kl[0].mean(),
        **{f"log_likelihood/{name}": base.mean_of(term[0], chosen[0, j]) for j, (name, term) in enumerate(terms.items())},
    }
    return objectives.weighted_sum(terms, weights, chosen) - beta * kl, metrics


def unimodal_elbos(
    parts: Parts,
    params: types.Params,
    key: types.Array,
    experts: types.Gaussian,
    data: types.Batch,
    present: types.Array,
    *,
    beta,
) -> types.Array:
    """Returns one-draw estimates of the ELBO of each modality alone, `[M, B]`; 0 where it is absent.

    They are `subset_elbos` of the subsets of one, without decoding the other modalities.
    """
    networks = parts.encoders.modalities
    weights = objectives.rescaling(networks.specs, enabled=parts.config.rescale)
    posterior = gaussian.product(jax.tree.map(lambda leaf: leaf[None], experts), power=1)
    z = distributions.gaussian_sample(key, posterior)
    observed = networks.canonical(data)
    elbos = []
    for j, name in enumerate(networks.names):
        decoded = networks.decode_one(params["decoders"], name, z[j])
        elbos.append(weights[name] * distributions.log_likelihood(networks.specs[name], decoded, observed[name]))
    return jnp.where(present, jnp.stack(elbos) - beta * distributions.kl_to_standard_normal(posterior), 0)
