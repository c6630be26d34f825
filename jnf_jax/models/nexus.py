"""Nexus, the hierarchy of modality-specific codes under a shared one (Vasco, Yin, Melo & Paiva, 2022).

At the bottom every modality has a VAE of its own, with code w_j. On top a code u, the nexus, explains all the w_j:

    p(X, w, u) = p(u) prod_j p(w_j | u) p(x_j | w_j),    p(u) = N(0, I),  p(w_j | u) = N(m_j(u), diag s_j^2).

u is inferred from the bottom codes. Each sends a message h_j(w_j), and q(u | w_S) is a Gaussian of the messages' mean over S, so that any subset will do. The
loss has two parts, and the top does not change the bottom, whose codes w' it takes as data (no gradient passes):

    L = sum_j [ - lambda_j E log p(x_j | w_j) + beta KL( q(w_j|x_j) || N(0, I) ) ]
        + sum_j [ - gamma log p(w'_j | u) ] + top_beta KL( q(u | w'_S) || p(u) ),      w_j ~ q(w_j | x_j),  u ~ q(u | w'_S).

S is every modality, or, with probability `dropout`, a random part of them (of a number uniform in 1..M-1), drawn anew for every example: the messages of a few must
do as well (the paper's forced perceptual dropout). KL terms are weighted from 0 to 1 over the first steps (`warmup`).

z is {"shared": u [.., D], "private": modality -> w_j [.., D_p]}. Given x_S, w_j ~ q(w_j | x_j) for j in S, then u ~ q(u | w_S), then w_i ~ p(w_i | u)
for the rest: exact draws with a density in closed form. `elbo` is that of the hierarchy, p(w_j | u) in the place of the bottom's N(0, I), and so not - L.

In MultiVae s_j is 1, or the batch's root mean square error of m_j; here it is learnt by default, which is the latter's maximum likelihood. MultiVae generates
with w_i = m_i(u). Where modalities share little, a learnt s_i is close to 1, and its noise hides what they share. With a `top_scale` of 0.1 and a `gamma`
of 0.01 the top's loss is that of MultiVae's default but for a constant, and draws are close to m_i(u); such densities of w_i are too narrow for likelihoods.

In an example that lacks modalities, messages and terms are those of the modalities that are there.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from jnf_jax import compiling, configs, distributions, keys, objectives, types
from jnf_jax import specs as specs_lib
from jnf_jax.models import base, closed_form, unimodal
from jnf_jax.networks import base as networks_base
from jnf_jax.networks import conv, mlp, modalities


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(configs.Component):
    """Nexus.

    Attributes:
      latent_dim: D, of the shared code.
      private_dim: D_p, of each modality's own code.
      beta: weight of the bottom's KL terms.
      top_beta: weight of the top's KL term.
      gamma: weight of the bottom codes' likelihoods.
      top_scale: s_j, standard deviation of a bottom code given the shared one; None: learnt, a number for each dimension.
      dropout: probability that an example's messages are a random part of them, in [0, 1].
      warmup: share of the steps over which KL terms rise to their weights; 0: they have them from the start.
      message_dim: of a modality's message.
      top_hidden: widths of the layers of messages, of q(u | w_S) and of m_j.
      rescale: whether each modality's likelihood is weighted by max_k dim(x_k) / dim(x_j).
      scale_transform: `softplus` or `exp`: how encoders make a scale positive.
      network: encoder and decoder of every modality.
      networks: exceptions to `network`, by modality.
      precision: what these networks compute in, `float32` or `bfloat16`.
    """

    latent_dim: int = 32
    private_dim: int = 32
    beta: float = 1.0
    top_beta: float = 1.0
    gamma: float = 1.0
    top_scale: float | None = None
    dropout: float = 0.5
    warmup: float = 0.1
    message_dim: int = 128
    top_hidden: tuple[int, ...] = (128,)
    rescale: bool = False
    scale_transform: Literal["softplus", "exp"] = "softplus"
    network: configs.Component = conv.Config()
    networks: Mapping[str, configs.Component] = dataclasses.field(default_factory=dict)
    precision: modalities.Precision = "float32"

    def __post_init__(self):
        super().__post_init__()
        base.check_settings(self)
        for name in ("private_dim", "message_dim"):
            if getattr(self, name) < 1:
                raise ValueError(f"Expected a {name} of at least 1, got {getattr(self, name)}.")
        for name in ("top_beta", "gamma", "top_scale"):
            if getattr(self, name) is not None and not getattr(self, name) > 0:
                raise ValueError(f"Expected a positive {name}, got {getattr(self, name)}.")
        if not 0 <= self.dropout <= 1:
            raise ValueError(f"Expected a dropout in [0, 1], got {self.dropout}.")


@dataclasses.dataclass(frozen=True)
class Parts:
    """What the functions below are made of; no parameters.

    Attributes:
      config: settings.
      encoders: of the bottom codes.
      message: w_j `[B, D_p]` -> `[B, H]`.
      trunk: mean message `[B, H]` -> what the head takes.
      head: to q(u | w_S).
      mean: u `[B, D]` -> m_j `[B, D_p]`.
    """

    config: Config
    encoders: unimodal.Encoders
    message: nn.Module
    trunk: nn.Module
    head: networks_base.GaussianHead
    mean: nn.Module

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
    encoders = unimodal.build(config, specs, networks, dim=config.private_dim)
    parts = Parts(
        config=config,
        encoders=encoders,
        message=mlp.Decoder(hidden=config.top_hidden, shape=(config.message_dim,)),
        trunk=mlp.MLP(hidden=config.top_hidden),
        head=networks_base.GaussianHead(dim=config.latent_dim, scale_transform=config.scale_transform),
        mean=mlp.Decoder(hidden=config.top_hidden, shape=(config.private_dim,)),
    )
    stage = base.Stage(
        name="vae",
        trainable=("bottom", "top", "decoders"),
        loss=functools.partial(loss, parts, 1.0),
        annealed=base.warmed_up(functools.partial(loss, parts), config.warmup),
        annealing=config.warmup,
        incomplete=True,
    )
    shared = closed_form.Parts(
        modalities=encoders.modalities,
        latent_dim=config.latent_dim + len(specs) * config.private_dim,
        prior=closed_form.Prior(functools.partial(sample_prior, parts), functools.partial(prior_log_density, parts)),
        encode=lambda params, name, x: encoders.encode(params["bottom"], name, x),
        combine=functools.partial(combine, parts),
        decode=functools.partial(decode, parts),
    )
    return closed_form.build(config, shared, functools.partial(init, parts), [stage])


def init(parts: Parts, key: types.Array) -> types.Params:
    """Returns {"bottom": .., "decoders": .., "top": messages and means, leaves `[M, ..]`, "trunk", "head", "log_scale" `[M, D_p]`}."""
    config, num = parts.config, len(parts.names)
    of_each = lambda module, name, dim: compiling.quickly(jax.vmap(lambda key: networks_base.init(module, key, (1, dim))))(
        jax.random.split(keys.stream(key, name), num)
    )
    message_shape = (1, config.message_dim)
    top = {
        "messages": of_each(parts.message, "messages", config.private_dim),
        "trunk": networks_base.init(parts.trunk, keys.stream(key, "trunk"), message_shape),
        "head": networks_base.init(
            parts.head, keys.stream(key, "head"), networks_base.output_shape(parts.trunk, message_shape)
        ),
        "means": of_each(parts.mean, "means", config.latent_dim),
    }
    if config.top_scale is None:
        top["log_scale"] = jnp.zeros((num, config.private_dim))
    return {
        "bottom": parts.encoders.init(key),
        "decoders": parts.encoders.modalities.init_decoders(keys.stream(key, "decoders"), config.private_dim),
        "top": top,
    }


def messages(parts: Parts, params: types.Params, w: types.Array, indices: types.Array) -> types.Array:
    """Returns h_j(w_j) `[.., |S|, B, H]` of the bottom codes `[.., |S|, B, D_p]` of the modalities of these numbers."""
    of_each = jax.tree.map(lambda leaf: leaf[indices], params["top"]["messages"])
    return _by_modality(parts.message, of_each, w)


def nexus_posterior(parts: Parts, params: types.Params, message: types.Array) -> types.Gaussian:
    """Returns q(u | w_S) `[.., B, D]`, given the mean message `[.., B, H]`."""
    top = params["top"]
    flat = parts.head.apply(top["head"], parts.trunk.apply(top["trunk"], message.reshape(-1, message.shape[-1])))
    return jax.tree.map(lambda leaf: leaf.reshape(*message.shape[:-1], -1), flat)


def private_prior(parts: Parts, params: types.Params, u: types.Array) -> types.Gaussian:
    """Returns p(w_j | u) `[.., M, B, D_p]` of every modality at u `[.., B, D]`."""
    shape = (*u.shape[:-2], len(parts.names), *u.shape[-2:])
    loc = _by_modality(parts.mean, params["top"]["means"], jnp.broadcast_to(u[..., None, :, :], shape))
    scale = parts.config.top_scale
    scale = jnp.exp(params["top"]["log_scale"])[:, None] if scale is None else jnp.asarray(scale, loc.dtype)
    return types.Gaussian(loc, jnp.broadcast_to(scale, loc.shape))


def _by_modality(module: nn.Module, params: types.Params, x: types.Array) -> types.Array:
    """Returns what modules of stacked parameters, leaves `[E, ..]`, make of `[.., E, B, D]`."""

    def one(params, x):
        return module.apply(params, x.reshape(-1, x.shape[-1])).reshape(*x.shape[:-1], -1)

    return jax.vmap(one, in_axes=(0, -3), out_axes=-3)(params, x)


def sample_prior(parts: Parts, params: types.Params, key: types.Array, num: int) -> types.Params:
    """Returns draws of p(u) prod_j p(w_j | u), leaves `[S, ..]`."""
    top_key, bottom_key = jax.random.split(key)
    u = distributions.gaussian_sample(top_key, distributions.standard((num, parts.config.latent_dim)))
    return _codes(parts, u, distributions.gaussian_sample(bottom_key, private_prior(parts, params, u)))


def prior_log_density(parts: Parts, params: types.Params, z) -> types.Array:
    """Returns log p(u) + sum_j log p(w_j | u) `[..]` at z, leaves `[.., D]`."""
    u, w = z["shared"][..., None, :], _stacked(parts, z)[..., None, :]
    private = distributions.gaussian_log_prob(private_prior(parts, params, u), w)[..., 0].sum(-1)
    return distributions.standard_normal_log_prob(z["shared"]) + private


def _codes(parts: Parts, u: types.Array, w: types.Array):
    return {"shared": u, "private": {name: w[j] for j, name in enumerate(parts.names)}}


def _stacked(parts: Parts, z) -> types.Array:
    """Returns the bottom codes, `[.., M, D_p]`."""
    return jnp.stack([z["private"][name] for name in parts.names], axis=-2)


def combine(parts: Parts, params: types.Params, bottom: types.Gaussian, indices: types.Array) -> closed_form.Posterior:
    """Returns q(w, u | x_S) of the bottom posteriors `[|S|, B, D_p]`."""
    unobserved = jnp.ones(len(parts.names), bool).at[indices].set(False)

    def nexus(w):  # [.., |S|, B, D_p]
        return nexus_posterior(parts, params, messages(parts, params, w, indices).mean(-3))

    def sample(key):
        bottom_key, top_key, rest_key = jax.random.split(key, 3)
        observed = distributions.gaussian_sample(bottom_key, bottom)
        u = distributions.gaussian_sample(top_key, nexus(observed))
        rest = distributions.gaussian_sample(rest_key, private_prior(parts, params, u))
        return _codes(parts, u, rest.at[indices].set(observed))

    def log_prob(z):
        u, w = z["shared"], jnp.swapaxes(_stacked(parts, z), -3, -2)  # [.., M, B, D_p]
        observed = jnp.take(w, indices, axis=-3)
        rest = distributions.gaussian_log_prob(private_prior(parts, params, u), w)
        rest = jnp.where(unobserved[:, None], rest, 0).sum(-2)
        own = distributions.gaussian_log_prob(bottom, observed).sum(-2)
        return own + distributions.gaussian_log_prob(nexus(observed), u) + rest

    return closed_form.Posterior(sample, log_prob)


def decode(parts: Parts, params: types.Params, z) -> types.Batch:
    """Returns modality -> likelihood parameters of the bottom codes."""
    networks = parts.encoders.modalities
    return {name: networks.decode_one(params["decoders"], name, z["private"][name]) for name in parts.names}


def loss(
    parts: Parts, weight: types.Array | float, params: types.Params, key: types.Array, batch: types.Batch
) -> tuple[types.Array, base.Metrics]:
    """Returns L with the KL terms weighted by `weight` once more."""
    config, networks = parts.config, parts.encoders.modalities
    weights = objectives.rescaling(networks.specs, enabled=config.rescale)
    bottom_key, top_key, dropout_key = jax.random.split(key, 3)
    data, present = networks.split(batch)
    posterior = parts.encoders.encode_all(params["bottom"], data)
    w = distributions.gaussian_sample(bottom_key, posterior)
    decoded = decode(parts, params, _codes(parts, None, w))
    terms = objectives.log_likelihoods(networks.specs, decoded, networks.canonical(data))
    kl = jnp.where(present, distributions.kl_to_standard_normal(posterior), 0).sum(0)
    bottom = weight * config.beta * kl - objectives.weighted_sum(terms, weights, present)

    w = jax.lax.stop_gradient(w)
    kept = keep(dropout_key, present, config.dropout)
    each = messages(parts, params, w, jnp.arange(len(parts.names)))
    nexus = nexus_posterior(parts, params, jnp.where(kept[..., None], each, 0).sum(0) / kept.sum(0)[:, None])
    u = distributions.gaussian_sample(top_key, nexus)
    codes = jnp.where(present, distributions.gaussian_log_prob(private_prior(parts, params, u), w), 0).sum(0)
    top_kl = distributions.kl_to_standard_normal(nexus)
    top = weight * config.top_beta * top_kl - config.gamma * codes

    metrics = {"kl": kl.mean(), "top_kl": top_kl.mean(), "bottom": bottom.mean(), "top": top.mean()}
    metrics |= {f"log_likelihood/{name}": base.mean_of(terms[name], present[j]) for j, name in enumerate(parts.names)}
    return (bottom + top).mean(), metrics


def keep(key: types.Array, present: types.Array, dropout: float) -> types.Array:
    """Returns whose messages count, `[M, B]` bool, of the modalities that are `present`: never none of them."""
    drop_key, count_key, order_key = jax.random.split(key, 3)
    num, size = present.shape
    drop = jax.random.uniform(drop_key, (size,)) < dropout
    count = jax.random.randint(count_key, (size,), 1, num)
    part = present & (jax.random.uniform(order_key, present.shape).argsort(0).argsort(0) < count)
    return jnp.where(drop & part.any(0), part, present)
