"""MHVAE, the multimodal VAE with a hierarchy of codes (Dorent et al., 2023, arXiv 2309.08747).

Codes z_1, .., z_L have levels, the deepest first in the story of the data; all modalities are decoded from the shallowest:

    p(X, z) = p(z_L) prod_{l < L} p(z_l | z_{l+1}) prod_j p(x_j | z_1),    p(z_L) = N(0, I).

Given a subset, every level has a product of experts that holds the prior of the level once:

    q(z_L | x_S)           proportional to  p(z_L)             prod_{j in S} q(z_L | x_j),
    q(z_l | x_S, z_{l+1})  proportional to  p(z_l | z_{l+1})   prod_{j in S} q(z_l | x_j, z_{l+1}).

All factors are Gaussians with diagonal covariances, so that each level is a Gaussian in closed form given the next deeper one: draws are exact and have a density.
For every subset S the expression

    ELBO_S(X) = E_q(z|x_S)[ sum_j lambda_j log p(x_j | z_1) ] - beta ( KL( q(z_L|x_S) || p(z_L) ) + sum_{l<L} E KL( q(z_l | x_S, z_{l+1}) || p(z_l | z_{l+1}) ) )

bounds log p(X) from below (lambda = beta = 1), and the loss is minus its mean over all 2^M - 1 subsets, or minus an unbiased estimate of that by `num_subsets` of
them, drawn anew for every example. In an example that lacks modalities, subsets and likelihoods are those of the modalities that are there.

The networks follow MultiVae's plan. Bottom-up blocks turn a modality's features into one skip for each level but the deepest, and into q(z_L | x_j). A top-down block
turns z_{l+1} into h; p(z_l | z_{l+1}) is read off h, and q(z_l | x_j, z_{l+1}) off h and the skip by a posterior block that all modalities share. Blocks are
layers of `block_hidden`; the paper's are convolutions on feature maps.

z is {"level_1": [.., D], .., "level_L": [.., D]}.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jnf_jax import configs, distributions, keys, objectives, subsets, types
from jnf_jax import specs as specs_lib
from jnf_jax.models import base, closed_form
from jnf_jax.networks import base as networks_base
from jnf_jax.networks import conv, mlp, modalities
from jnf_jax.posteriors import gaussian

Codes = dict[str, types.Array]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(configs.Component):
    """MHVAE.

    Attributes:
      latent_dim: D, of every level.
      num_levels: L, at least 2.
      beta: weight of all KL terms.
      num_subsets: random subsets of an example that the loss takes; None: all of them.
      skip_dim: of what the bottom-up blocks leave for each level.
      block_hidden: widths of the layers of a block; none: blocks are linear.
      rescale: whether each modality's likelihood is weighted by max_k dim(x_k) / dim(x_j).
      scale_transform: `softplus` or `exp`: how networks make a scale positive.
      network: encoder and decoder of every modality.
      networks: exceptions to `network`, by modality.
      precision: what these networks compute in, `float32` or `bfloat16`.
    """

    latent_dim: int = 32
    num_levels: int = 2
    beta: float = 1.0
    num_subsets: int | None = 1
    skip_dim: int = 128
    block_hidden: tuple[int, ...] = (128,)
    rescale: bool = False
    scale_transform: Literal["softplus", "exp"] = "softplus"
    network: configs.Component = conv.Config()
    networks: Mapping[str, configs.Component] = dataclasses.field(default_factory=dict)
    precision: modalities.Precision = "float32"

    def __post_init__(self):
        super().__post_init__()
        base.check_settings(self)
        for name, least in (("num_levels", 2), ("num_subsets", 1), ("skip_dim", 1)):
            if getattr(self, name) is not None and getattr(self, name) < least:
                raise ValueError(f"Expected a {name} of at least {least}, got {getattr(self, name)}.")


@dataclasses.dataclass(frozen=True)
class Parts:
    """What the functions below are made of; no parameters.

    Attributes:
      config: settings.
      modalities: the networks.
      skip: what came last bottom-up -> the next skip `[B, H]`; linear on an encoder's features.
      block: layers of a block.
      head: to a Gaussian `[B, D]`.
    """

    config: Config
    modalities: modalities.Modalities
    skip: nn.Module
    block: nn.Module
    head: networks_base.GaussianHead

    @property
    def middle(self) -> range:
        """The levels but the deepest, 1 to L - 1."""
        return range(1, self.config.num_levels)

    @property
    def table(self) -> np.ndarray:
        """All subsets, `[N, M]` bool."""
        names = self.modalities.names
        return np.asarray([[n in subset for n in names] for subset in [*subsets.proper(names), names]], bool)


def level(number: int) -> str:
    """Returns the name of a level's codes."""
    return f"level_{number}"


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
    parts = Parts(
        config=config,
        modalities=networks_of,
        skip=nn.Dense(config.skip_dim),
        block=mlp.MLP(hidden=config.block_hidden),
        head=networks_base.GaussianHead(dim=config.latent_dim, scale_transform=config.scale_transform),
    )
    stage = base.Stage(
        name="vae",
        trainable=("bottom_up", "top_down", "decoders"),
        loss=functools.partial(loss, parts),
        incomplete=True,
    )
    shared = closed_form.Parts(
        modalities=networks_of,
        latent_dim=config.num_levels * config.latent_dim,
        prior=closed_form.Prior(functools.partial(sample_prior, parts), functools.partial(prior_log_density, parts)),
        encode=functools.partial(encode, parts),
        combine=functools.partial(combine, parts),
        decode=lambda params, z: networks_of.decode(params["decoders"], z[level(1)]),
    )
    return closed_form.build(config, shared, functools.partial(init, parts), [stage])


def init(parts: Parts, key: types.Array) -> types.Params:
    """Returns {"bottom_up": {"encoders", "blocks": by modality}, "top_down": level -> its blocks and heads, "decoders"}."""
    config, names = parts.config, parts.modalities.names
    encoders = parts.modalities.init_encoders(keys.stream(key, "encoders"))
    blocks = {}
    for name in names:
        blocks[name] = _init_bottom_up(parts, keys.stream(key, f"bottom up {name}"), parts.modalities.features_shape(name))
    top_down = {level(number): _init_level(parts, keys.stream(key, "level", number)) for number in parts.middle}
    return {
        "bottom_up": {"encoders": encoders, "blocks": blocks},
        "top_down": top_down,
        "decoders": parts.modalities.init_decoders(keys.stream(key, "decoders"), config.latent_dim),
    }


def _init_bottom_up(parts: Parts, key: types.Array, features_shape: tuple[int, ...]) -> types.Params:
    init, shape_of_block = networks_base.init, functools.partial(networks_base.output_shape, parts.block)
    skips, shape = {}, features_shape
    for number in parts.middle:
        block = init(parts.block, keys.stream(key, "block", number), shape) if number > 1 else {}
        hidden_shape = shape_of_block(shape) if number > 1 else shape
        skips[level(number)] = {"block": block, "skip": init(parts.skip, keys.stream(key, "skip", number), hidden_shape)}
        shape = (1, parts.config.skip_dim)
    block = init(parts.block, keys.stream(key, "deepest"), shape)
    head = init(parts.head, keys.stream(key, "head"), shape_of_block(shape))
    return {"skips": skips, "deepest": {"block": block, "head": head}}


def _init_level(parts: Parts, key: types.Array) -> types.Params:
    init, shape_of_block = networks_base.init, functools.partial(networks_base.output_shape, parts.block)
    deeper_shape = (1, parts.config.latent_dim)
    hidden_shape = shape_of_block(deeper_shape)
    seen_shape = (1, hidden_shape[-1] + parts.config.skip_dim)
    return {
        "top_down": init(parts.block, keys.stream(key, "top down"), deeper_shape),
        "prior": init(parts.head, keys.stream(key, "prior"), hidden_shape),
        "posterior": init(parts.block, keys.stream(key, "posterior"), seen_shape),
        "head": init(parts.head, keys.stream(key, "head"), shape_of_block(seen_shape)),
    }


def encode(parts: Parts, params: types.Params, name: str, x: types.Array) -> dict[str, Any]:
    """Returns what one modality says: {"deepest": q(z_L | x_j) `[B, D]`, "skips": `[B, L - 1, H]`, the shallowest first}."""
    blocks = params["bottom_up"]["blocks"][name]
    seen, skips = parts.modalities.features(params["bottom_up"]["encoders"], name, x), []
    for number in parts.middle:
        own = blocks["skips"][level(number)]
        hidden = parts.block.apply(own["block"], seen) if number > 1 else seen
        seen = parts.skip.apply(own["skip"], hidden)
        skips.append(seen)
    hidden = parts.block.apply(blocks["deepest"]["block"], seen)
    return {"deepest": parts.head.apply(blocks["deepest"]["head"], hidden), "skips": jnp.stack(skips, axis=1)}


def top_down(parts: Parts, params: types.Params, number: int, deeper: types.Array) -> tuple[types.Array, types.Gaussian]:
    """Returns h and p(z_l | z_{l+1}), `[.., B, D]`, at z_{l+1} `[.., B, D]`."""
    own = params["top_down"][level(number)]
    h = _apply(parts.block, own["top_down"], deeper)
    return h, _apply(parts.head, own["prior"], h)


def level_posterior(
    parts: Parts,
    params: types.Params,
    number: int,
    h: types.Array,
    prior: types.Gaussian,
    skips: types.Array,
    present: types.Array,
) -> types.Gaussian:
    """Returns q(z_l | x_S, z_{l+1}) `[.., B, D]`.

    Args:
      parts: of the model.
      params: its parameters.
      number: l.
      h: `[.., 1 or B, H]` of `top_down`.
      prior: p(z_l | z_{l+1}), `[.., 1 or B, D]`.
      skips: of the modalities, `[E, B, L - 1, H]`.
      present: `[E, B]` bool, those in S.
    """
    own = params["top_down"][level(number)]
    of_level = skips[:, :, number - 1]
    shape = (*h.shape[:-2], *of_level.shape[:-1])  # [.., E, B]
    wide = lambda leaf: jnp.broadcast_to(leaf, (*shape, leaf.shape[-1]))
    seen = jnp.concatenate([wide(h[..., None, :, :]), wide(of_level)], axis=-1)
    experts = _apply(parts.head, own["head"], _apply(parts.block, own["posterior"], seen))
    prior = jax.tree.map(lambda leaf, like: jnp.broadcast_to(leaf[..., None, :, :], like[..., :1, :, :].shape), prior, experts)
    factors = jax.tree.map(lambda *leaves: jnp.moveaxis(jnp.concatenate(leaves, axis=-3), -3, 0), prior, experts)
    there = jnp.concatenate([jnp.ones_like(present[:1]), present])
    there = there.reshape(len(there), *(1,) * (len(shape) - 2), -1)
    return gaussian.product(factors, power=0, present=jnp.broadcast_to(there, factors.loc.shape[:-1]))


def _apply(module: nn.Module, params: types.Params, x: types.Array) -> Any:
    """Returns what a module makes of `[.., B, F]`."""
    flat = module.apply(params, x.reshape(-1, x.shape[-1]))
    return jax.tree.map(lambda leaf: leaf.reshape(*x.shape[:-1], -1), flat)


def descend(
    parts: Parts, params: types.Params, key: types.Array, encodings: dict[str, Any], present: types.Array
) -> tuple[Codes, types.Array]:
    """Returns one draw of q(z | x_S), leaves `[B, D]`, and the KL terms `[B]` of all levels along it.

    Args:
      parts: of the model.
      params: its parameters.
      key: of the draw.
      encodings: of the modalities, leaves `[E, B, ..]`.
      present: `[E, B]` bool, those in S.
    """
    deepest = gaussian.product(encodings["deepest"], power=1, present=present)
    deeper = distributions.gaussian_sample(keys.stream(key, "level", parts.config.num_levels), deepest)
    z, kl = {level(parts.config.num_levels): deeper}, distributions.kl_to_standard_normal(deepest)
    for number in reversed(parts.middle):
        h, prior = top_down(parts, params, number, deeper)
        posterior = level_posterior(parts, params, number, h, prior, encodings["skips"], present)
        deeper = distributions.gaussian_sample(keys.stream(key, "level", number), posterior)
        z[level(number)] = deeper
        kl += distributions.kl_between(posterior, prior)
    return z, kl


def combine(parts: Parts, params: types.Params, encodings: dict[str, Any], indices: types.Array) -> closed_form.Posterior:
    """Returns q(z | x_S) of the encodings, leaves `[|S|, B, ..]`."""
    present = jnp.ones((len(indices), encodings["skips"].shape[1]), bool)

    def log_prob(z):
        deepest = z[level(parts.config.num_levels)]
        total = distributions.gaussian_log_prob(gaussian.product(encodings["deepest"], power=1), deepest)
        for number in reversed(parts.middle):
            h, prior = top_down(parts, params, number, z[level(number + 1)])
            posterior = level_posterior(parts, params, number, h, prior, encodings["skips"], present)
            total += distributions.gaussian_log_prob(posterior, z[level(number)])
        return total

    return closed_form.Posterior(sample=lambda key: descend(parts, params, key, encodings, present)[0], log_prob=log_prob)


def sample_prior(parts: Parts, params: types.Params, key: types.Array, num: int) -> Codes:
    """Returns draws of p(z), leaves `[S, D]`."""
    deepest = parts.config.num_levels
    standard = distributions.standard((num, parts.config.latent_dim))
    z = {level(deepest): distributions.gaussian_sample(keys.stream(key, "level", deepest), standard)}
    for number in reversed(parts.middle):
        _, prior = top_down(parts, params, number, z[level(number + 1)])
        z[level(number)] = distributions.gaussian_sample(keys.stream(key, "level", number), prior)
    return z


def prior_log_density(parts: Parts, params: types.Params, z: Codes) -> types.Array:
    """Returns log p(z) `[..]` at z, leaves `[.., D]`."""
    total = distributions.standard_normal_log_prob(z[level(parts.config.num_levels)])
    for number in parts.middle:
        _, prior = top_down(parts, params, number, z[level(number + 1)])
        total += distributions.gaussian_log_prob(prior, z[level(number)])
    return total


def loss(parts: Parts, params: types.Params, key: types.Array, batch: types.Batch) -> tuple[types.Array, base.Metrics]:
    """Returns minus the mean, or an estimate of the mean, of ELBO_S over the subsets."""
    config, networks = parts.config, parts.modalities
    weights = objectives.rescaling(networks.specs, enabled=config.rescale)
    data, present = networks.split(batch)
    subset_key, draw_key = jax.random.split(key)
    encodings = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(encode(parts, params, n, data[n]) for n in networks.names))
    chosen, share = choose(parts, subset_key, present)
    one = lambda key, subset: descend(parts, params, key, encodings, subset)
    z, kl = jax.vmap(one)(jax.random.split(draw_key, len(chosen)), chosen)
    decoded = networks.decode(params["decoders"], z[level(1)])
    terms = objectives.log_likelihoods(networks.specs, decoded, networks.canonical(data))  # [T, B] each
    elbos = objectives.weighted_sum(terms, weights, present) - config.beta * kl
    metrics = {"kl": (share * kl).sum(0).mean()}
    metrics |= {
        f"log_likelihood/{name}": base.mean_of((share * term).sum(0), present[j])
        for j, (name, term) in enumerate(terms.items())
    }
    return -(share * elbos).sum(0).mean(), metrics


def choose(parts: Parts, key: types.Array, present: types.Array) -> tuple[types.Array, types.Array]:
    """Returns subsets of the modalities that are `present` in each example, `[T, M, B]` bool, and their shares `[T, B]`, which add up to 1."""
    table, num = jnp.asarray(parts.table), parts.config.num_subsets
    there = (present[None] | ~table[:, :, None]).all(1)  # [N, B] subsets with nothing missing
    if num is None:
        chosen = jnp.broadcast_to(table[:, :, None], (*table.shape, present.shape[1]))
        return chosen, there / there.sum(0)
    numbers = jax.random.categorical(key, jnp.where(there, 0.0, -jnp.inf), axis=0, shape=(num, present.shape[1]))
    return table[numbers].swapaxes(1, 2), jnp.full((num, present.shape[1]), 1 / num)
