"""MMVAE+, a mixture of experts with shared and private codes (Palumbo, Daunhawer & Vogt, 2023).

A modality is decoded from the shared code u and a private code w_j of its own: p(X, u, w) = p(u) prod_j p(w_j) p(x_j | u, w_j). In a mixture of experts
every modality must be decoded from every other one's code, so in MMVAE the shared code fills with what is private. Here a component j decodes itself
from its own private code and the others from codes of auxiliary priors r_i(w_i), which carry nothing of x_i:

    L = - 1/M sum_j E[ log 1/K sum_k w_jk ],    u ~ q_j(u | x_j),  w_j ~ q_j(w_j | x_j),  w_i ~ r_i for i != j,

    log w = lambda_j log p(x_j | u, w_j) + sum_{i != j} lambda_i log p(x_i | u, w_i) + beta ( log p(u) + log p(w_j) - log q(u | X) - log q_j(w_j | x_j) ),

with q(u | X) = 1/M sum_j q_j(u | x_j). r_i is the prior's family with location 0 and a learnt scale.

It is a bound (lambda = beta = 1): draw j, then the codes as above, with density 1/M q_j(u) q_j(w_j) prod_{i != j} r_i(w_i), and let the reversed model say
from which j a code u came, q_j(u) / sum_i q_i(u). The ELBO of this extended model has the ratio p(X, u, w) / ( q(u | X) q_j(w_j) prod_{i != j} r_i(w_i) ), so that

    log p(X) >= - L - (M - 1)/M sum_i KL( r_i || p )      at K = 1.

With r_i = p, - L itself is a bound; K > 1 tightens it as in MMVAE, and gradients are the same (`iwae`, `dreg`).

z is {"shared": [.., D], "private": modality -> [.., D_p]}. Given x_S, u comes from the mixture of the observed q_j, w_j of an observed modality
from q_j, and any other from the prior p. `elbo` and `log_likelihood` use that posterior, in which every observed modality has its own
private code, so that `elbo` is not - L. The paper's released code keeps the parameters in log q when it reweights gradients; ours is the
estimator of `objectives.stratified_dreg`.

In an example that lacks modalities, components, likelihoods and the mixture are those of the modalities that are there.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp

from jnf_jax import configs, distributions, keys, objectives, types
from jnf_jax import specs as specs_lib
from jnf_jax.models import base, closed_form, unimodal
from jnf_jax.networks import base as networks_base
from jnf_jax.networks import conv, modalities
from jnf_jax.posteriors import mixture as mixtures

Codes = dict[str, Any]  # {"shared": [.., D], "private": modality -> [.., D_p]}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(configs.Component):
    """MMVAE+.

    Attributes:
      latent_dim: D, of the shared code.
      private_dim: D_p, of each modality's private code.
      beta: weight of the terms of priors and posteriors.
      num_importance: K; 1, the paper's image experiments, gives an ELBO.
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
        for name in ("private_dim", "num_importance"):
            if getattr(self, name) < 1:
                raise ValueError(f"Expected a {name} of at least 1, got {getattr(self, name)}.")


@dataclasses.dataclass(frozen=True)
class Parts:
    """What the functions below are made of; no parameters."""

    config: Config
    encoders: unimodal.Encoders

    @property
    def names(self) -> tuple[str, ...]:
        """The modalities in order."""
        return self.encoders.modalities.names


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
    parts = Parts(config=config, encoders=encoders)
    stage = base.Stage(
        name="vae", trainable=("experts", "auxiliary", "decoders"), loss=functools.partial(loss, parts), incomplete=True
    )
    shared = closed_form.Parts(
        modalities=encoders.modalities,
        latent_dim=config.latent_dim + len(specs) * config.private_dim,
        prior=prior(parts),
        encode=lambda params, name, x: split(parts, parts.encoders.encode(params["experts"], name, x)),
        combine=functools.partial(combine, parts),
        decode=functools.partial(decode, parts),
    )
    return closed_form.build(shared, functools.partial(init, parts), [stage])


def init(parts: Parts, key: types.Array) -> types.Params:
    """Returns {"experts": .., "auxiliary": modality -> log scale of r_j `[D_p]`, "decoders": ..}."""
    config = parts.config
    dim = config.latent_dim + config.private_dim
    return {
        "experts": parts.encoders.init(key),
        "auxiliary": {name: jnp.zeros(config.private_dim) for name in parts.names},
        "decoders": parts.encoders.modalities.init_decoders(keys.stream(key, "decoders"), dim),
    }


def prior(parts: Parts) -> closed_form.Prior:
    """Returns p(u) prod_j p(w_j)."""
    config = parts.config
    shared, private = (closed_form.standard_prior(dim, family=config.family) for dim in (config.latent_dim, config.private_dim))

    def sample(key, num):
        of_name = {name: private.sample(keys.stream(key, f"private {name}"), num) for name in parts.names}
        return {"shared": shared.sample(keys.stream(key, "shared"), num), "private": of_name}

    def log_prob(z):
        return shared.log_prob(z["shared"]) + sum(private.log_prob(w) for w in z["private"].values())

    return closed_form.Prior(sample, log_prob)


def split(parts: Parts, encoded: types.Gaussian) -> dict[str, types.Gaussian]:
    """Returns an encoder's output `[.., D + D_p]` as that of the shared and that of the private code."""
    dim = parts.config.latent_dim
    shared, private = (jax.tree.map(lambda leaf: leaf[..., part], encoded) for part in (slice(dim), slice(dim, None)))
    return {"shared": shared, "private": private}


def combine(parts: Parts, encodings: dict[str, types.Gaussian], indices: types.Array) -> closed_form.Posterior:
    """Returns q(u, w | x_S) of the encodings `[|S|, B, ..]`."""
    config = parts.config
    mixture = mixtures.uniform(encodings["shared"])
    shape = (len(parts.names), *encodings["private"].loc.shape[1:])
    private = jax.tree.map(
        lambda default, leaf: default.at[indices].set(leaf),
        distributions.standard(shape, encodings["private"].loc.dtype),
        encodings["private"],
    )  # [M, B, D_p]
    of_name = {name: jax.tree.map(lambda leaf: leaf[j], private) for j, name in enumerate(parts.names)}

    def sample(key):
        return {
            "shared": mixtures.sample(keys.stream(key, "shared"), mixture, family=config.family),
            "private": {
                name: distributions.family_sample(config.family, keys.stream(key, f"private {name}"), q)
                for name, q in of_name.items()
            },
        }

    def log_prob(z):
        each = [distributions.family_log_prob(config.family, q, z["private"][name]) for name, q in of_name.items()]
        return mixtures.log_prob(mixture, z["shared"], family=config.family) + sum(each)

    return closed_form.Posterior(sample, log_prob)


def decode(parts: Parts, params: types.Params, z: Codes) -> types.Batch:
    """Returns modality -> likelihood parameters of the codes."""
    networks = parts.encoders.modalities
    code = lambda name: jnp.concatenate([z["shared"], z["private"][name]], axis=-1)
    return {name: networks.decode_one(params["decoders"], name, code(name)) for name in parts.names}


def loss(parts: Parts, params: types.Params, key: types.Array, batch: types.Batch) -> tuple[types.Array, base.Metrics]:
    """Returns L."""
    config = parts.config
    data, present = parts.encoders.modalities.split(batch)
    experts = split(parts, parts.encoders.encode_all(params["experts"], data))
    draws = draw(parts, params, key, experts)
    weigh = functools.partial(log_weight, parts, parts.encoders.modalities.canonical(data), present)
    coefficients = present / present.sum(0) / present.shape[1]
    if config.gradient == "iwae":
        bound = objectives.stratified_bound(weigh(draws, params["decoders"], experts), coefficients)
    else:
        bound = objectives.stratified_dreg(
            weigh,
            draws,
            params["decoders"],
            experts,
            coefficients=coefficients,
            present=present,
            log_components=lambda draws, experts: mixtures.component_log_probs(
                experts["shared"], draws["shared"], family=config.family
            ),
            scales=functools.partial(scales, parts),
            beta=config.beta,
        )
    return -bound, {"bound": bound}


def draw(parts: Parts, params: types.Params, key: types.Array, experts: dict[str, types.Gaussian]) -> dict[str, Any]:
    """Returns u and w_j of every component, and w_i of the auxiliary priors, `[K, M, B, ..]` each."""
    config = parts.config
    shape = experts["private"].loc.shape

    def one(key):
        of = lambda name, q: distributions.family_sample(config.family, keys.stream(key, name), q)
        standard = distributions.standard(shape, experts["private"].loc.dtype)
        auxiliary = {n: jnp.exp(scale) * of(f"auxiliary {n}", standard) for n, scale in params["auxiliary"].items()}
        return {"shared": of("shared", experts["shared"]), "private": of("private", experts["private"]), "auxiliary": auxiliary}

    return jax.vmap(one)(jax.random.split(key, config.num_importance))


def scales(parts: Parts, share: types.Array, own: types.Array) -> dict[str, Any]:
    """Returns the factors on the paths' weights, as `objectives.stratified_dreg` derives them.

    A private code has one component, the auxiliary ones have no density in the weights.
    """
    beta = parts.config.beta
    one = jnp.ones_like(share)
    return {
        "shared": 1 - beta * (1 - share) * own,
        "private": 1 - beta * (1 - share),
        "auxiliary": dict.fromkeys(parts.names, one),
    }


def log_weight(
    parts: Parts,
    data: types.Batch,
    present: types.Array,
    draws: dict[str, Any],
    decoders: types.Params,
    experts: dict[str, types.Gaussian],
) -> types.Array:
    """Returns log w `[K, M, B]`; `data` is canonical."""
    config, networks = parts.config, parts.encoders.modalities
    weights = objectives.rescaling(networks.specs, enabled=config.rescale)
    itself = jnp.eye(len(parts.names), dtype=bool)[:, :, None, None]  # component, modality
    private = {name: jnp.where(itself[:, i], draws["private"], draws["auxiliary"][name]) for i, name in enumerate(parts.names)}
    decoded = decode(parts, {"decoders": decoders}, {"shared": draws["shared"], "private": private})
    terms = objectives.log_likelihoods(networks.specs, decoded, data)
    standard = lambda z: distributions.family_log_prob(config.family, distributions.standard(z.shape[-1:], z.dtype), z)
    log_prior = standard(draws["shared"]) + standard(draws["private"])
    log_q = mixtures.log_prob(mixtures.uniform(experts["shared"], present), draws["shared"], family=config.family)
    log_q += distributions.family_log_prob(config.family, experts["private"], draws["private"])
    return objectives.weighted_sum(terms, weights, present) + config.beta * (log_prior - log_q)
