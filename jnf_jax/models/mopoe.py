"""MoPoE, a mixture of products of experts (Sutter, Daunhawer & Vogt, 2021, arXiv 2105.02470).

The posterior is the equal mixture of the products over all non-empty subsets of what is observed:

    q(z | x_S) = 1 / (2^|S| - 1)  sum_{A in P(S), A not empty}  q_A(z | x_A),    q_A proportional to prod_{j in A} q_j(z | x_j)

Products of Gaussians are Gaussians in closed form. KL is convex, so the mixture's is at most the mean of its components', and

    log p(X) >= E_q(z|X)[ log p(X | z) ] - KL( q(z|X) || p(z) ) >= mean_A { E_q_A[ log p(X | z) ] - KL( q_A || p(z) ) }

The last one is trained, with weights: L = - E_q(z|X)[ sum_j lambda_j log p(x_j | z) ] + beta mean_A KL( q_A || p(z) ). The expectation is
estimated by one draw of the mixture: a random subset for each example, as in the authors' code, which cuts the batch into parts.
Only the subsets of one give MMVAE's posterior, only the full one gives MVTCAE's (or MVAE's, with the prior among the experts).

Where an example lacks modalities, the subsets are those of what is there. The paper defines q for what is observed as its mixture; the authors' and
MultiVae's sampling takes the product over all of S alone, and so do we by default (`sample_from`). Their code also adds the prior to the
product of all modalities; the paper's formula does not, nor do we by default (`prior_in_full`).
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from jnf_jax import configs, distributions, objectives, types
from jnf_jax import specs as specs_lib
from jnf_jax import subsets as subsets_lib
from jnf_jax.models import base, closed_form, unimodal
from jnf_jax.networks import base as networks_base
from jnf_jax.networks import conv, modalities
from jnf_jax.posteriors import gaussian
from jnf_jax.posteriors import mixture as mixtures


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(configs.Component):
    """MoPoE.

    Attributes:
      latent_dim: D.
      beta: weight of the KL terms.
      sample_from: what stands for q(z | x_S): `mixture` of all products within S, or the `product` over S alone, the authors' choice when they
        generate.
      prior_in_full: whether the prior is one more expert in the product of all modalities, as in the authors' code and MultiVae.
      rescale: whether each modality's likelihood is weighted by max_k dim(x_k) / dim(x_j).
      scale_transform: `softplus` or `exp`: how encoders make a scale positive.
      network: encoder and decoder of every modality.
      networks: exceptions to `network`, by modality.
      precision: what these networks compute in, `float32` or `bfloat16`.
    """

    latent_dim: int = 32
    beta: float = 1.0
    sample_from: Literal["mixture", "product"] = "product"
    prior_in_full: bool = False
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
    return unimodal.vae(config, encoders, stage, functools.partial(combine, parts))


def combine(parts: Parts, params: types.Params, experts: types.Gaussian, indices: types.Array) -> closed_form.Posterior:
    """Returns q(z | x_S) of the experts `[|S|, B, D]`."""
    del params
    if parts.config.sample_from == "product":
        everything = np.ones((1, len(indices)), bool)
        return closed_form.gaussian_posterior(jax.tree.map(lambda leaf: leaf[0], products(parts, experts, everything)))
    return closed_form.mixture_posterior(mixtures.uniform(products(parts, experts, all_subsets(len(indices)))))


def all_subsets(num: int) -> np.ndarray:
    """Returns the non-empty subsets of `num` things, `[2^num - 1, num]` bool, the full one last."""
    numbers = tuple(range(num))
    return np.asarray([[n in subset for n in numbers] for subset in [*subsets_lib.proper(numbers), numbers]], bool)


def products(parts: Parts, experts: types.Gaussian, chosen: np.ndarray) -> types.Gaussian:
    """Returns the product over each subset `[C, B, D]`, of experts `[E, B, D]` and subsets `[C, E]` bool."""
    num = len(parts.encoders.modalities.names)
    power = lambda subset: int(parts.config.prior_in_full and subset.sum() == num)
    members = lambda subset: jax.tree.map(lambda leaf: leaf[np.flatnonzero(subset)], experts)
    each = [gaussian.product(members(subset), power=power(subset)) for subset in chosen]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)


def loss(
    parts: Parts,
    params: types.Params,
    key: types.Array,
    batch: types.Batch,
    *,
    chosen: np.ndarray | None = None,
) -> tuple[types.Array, base.Metrics]:
    """Returns L, of all subsets of the modalities or of those `chosen`, `[C, M]` bool."""
    config, networks = parts.config, parts.encoders.modalities
    weights = objectives.rescaling(networks.specs, enabled=config.rescale)
    data, present = networks.split(batch)
    chosen = all_subsets(len(networks.names)) if chosen is None else chosen
    experts = parts.encoders.encode_all(params["experts"], data)
    there = (present[None] | ~chosen[:, :, None]).all(1)  # [C, B] subsets with nothing missing
    mixture = mixtures.uniform(products(parts, experts, chosen), there)
    z = mixtures.sample(key, mixture)
    terms = objectives.log_likelihoods(networks.specs, networks.decode(params["decoders"], z), networks.canonical(data))
    reconstruction = -objectives.weighted_sum(terms, weights, present)
    kl = (jnp.exp(mixture.log_weights) * distributions.kl_to_standard_normal(mixture.components)).sum(0)
    metrics = {"kl": kl.mean()}
    metrics |= {f"log_likelihood/{name}": base.mean_of(terms[name], present[j]) for j, name in enumerate(networks.names)}
    return (reconstruction + config.beta * kl).mean(), metrics
