"""CVAE, the conditional VAE (Sohn, Lee & Yan, 2015), for any condition.

Given some modalities x_S, the others x_T, T the complement of S, are generated from a code whose prior knows x_S. A recognition network that sees
everything gives a bound, with its equality where q(z | X) = p(z | x_S, x_T):

    log p(x_T | x_S)  >=  E_q(z|X)[ sum_{j in T} lambda_j log p(x_j | z) ] - beta KL( q(z|X) || p(z | x_S) ),    lambda = beta = 1.

The loss is minus the bound's mean over conditions S drawn anew for every example: their number is uniform in 0..M-1, and all S of one number are equally
likely (as in Ivanov, Figurnov & Vetrov, 2019, for pixels). Given nothing, p(z) is N(0, I), the bound is the joint ELBO, and the prior generates everything.
p(z | x_S) is one network for all S: it adds up what the observed modalities' encoders say.

Sohn et al. and MultiVae have one fixed S and T, and a decoder that sees x_S beside z. `base.Model` decodes z alone, so x_S reaches the decoders through
z here; `loss` with `given` is MultiVae's objective under such a decoder. They generate from the conditional prior as we do.

Posteriors: p(z | x_S) given a subset, q(z | X) given everything. Both are Gaussians.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from jnf_jax import configs, distributions, keys, objectives, types
from jnf_jax import specs as specs_lib
from jnf_jax.models import base, closed_form, joint
from jnf_jax.networks import base as networks_base
from jnf_jax.networks import conv, mlp, modalities


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(configs.Component):
    """CVAE.

    Attributes:
      latent_dim: D.
      beta: weight of the KL term.
      rescale: whether each modality's likelihood is weighted by max_k dim(x_k) / dim(x_j).
      scale_transform: `softplus` or `exp`: how encoders make a scale positive.
      network: encoder and decoder of every modality.
      networks: exceptions to `network`, by modality.
      precision: what these networks compute in, `float32` or `bfloat16`.
      joint_hidden: widths of the layers between the concatenated features and q(z | X).
      condition_dim: numbers that each observed modality adds to the condition.
      condition_hidden: widths of the layers between the condition and p(z | x_S).
    """

    latent_dim: int = 32
    beta: float = 1.0
    rescale: bool = False
    scale_transform: Literal["softplus", "exp"] = "softplus"
    network: configs.Component = conv.Config()
    networks: Mapping[str, configs.Component] = dataclasses.field(default_factory=dict)
    precision: modalities.Precision = "float32"
    joint_hidden: tuple[int, ...] = (512,)
    condition_dim: int = 512
    condition_hidden: tuple[int, ...] = (512,)

    def __post_init__(self):
        super().__post_init__()
        base.check_settings(self)
        if self.condition_dim < 1:
            raise ValueError(f"Expected a condition_dim of at least 1, got {self.condition_dim}.")


@dataclasses.dataclass(frozen=True)
class Condition:
    """p(z | x_S); params are {"encoders": modality -> .., "embeddings": modality -> .., "trunk": .., "head": ..}.

    It equals a network on the concatenated features of all modalities, those not observed set to 0, and on which are observed: the first layer of
    such a network is a sum over the observed.
    """

    modalities: modalities.Modalities
    embedding: nn.Dense
    trunk: nn.Module
    head: networks_base.GaussianHead

    def init(self, key: types.Array) -> types.Params:
        """Returns the parameters."""
        encoders, embeddings = self.modalities.init_encoders(keys.stream(key, "encoders")), {}
        for name in self.modalities.names:
            shape = self.modalities.features_shape(name)
            embeddings[name] = networks_base.init(self.embedding, keys.stream(key, f"embedding {name}"), shape)
        shape = (1, self.embedding.features)
        trunk = networks_base.init(self.trunk, keys.stream(key, "trunk"), shape)
        head = networks_base.init(self.head, keys.stream(key, "head"), networks_base.output_shape(self.trunk, shape))
        return {"encoders": encoders, "embeddings": embeddings, "trunk": trunk, "head": head}

    def embed(self, params: types.Params, name: str, x: types.Array) -> types.Array:
        """Returns what one modality `[B, *shape]` adds to the condition, `[B, H]`."""
        features = self.modalities.features(params["encoders"], name, x)
        return self.embedding.apply(params["embeddings"][name], features)

    def prior(self, params: types.Params, total: types.Array) -> types.Gaussian:
        """Returns p(z | x_S) `[B, D]`, given the sum `[B, H]` of what the observed modalities add."""
        return self.head.apply(params["head"], self.trunk.apply(params["trunk"], nn.relu(total)))


@dataclasses.dataclass(frozen=True)
class Parts:
    """What the functions below are made of; no parameters."""

    config: Config
    joint: joint.Encoder
    condition: Condition

    @property
    def modalities(self) -> modalities.Modalities:
        """The networks."""
        return self.joint.modalities


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
    parts = make_parts(config, specs, networks=networks)
    networks_of = parts.modalities
    stage = base.Stage(name="vae", trainable=("joint", "condition", "decoders"), loss=functools.partial(loss, parts))
    shared = closed_form.Parts(
        modalities=networks_of,
        latent_dim=config.latent_dim,
        prior=closed_form.standard_prior(config.latent_dim),
        encode=lambda params, name, x: parts.condition.embed(params["condition"], name, x),
        combine=functools.partial(combine, parts),
        decode=lambda params, z: networks_of.decode(params["decoders"], z),
        encode_whole=lambda params, data: closed_form.gaussian_posterior(parts.joint.encode(params["joint"], data)),
    )
    return closed_form.build(config, shared, functools.partial(init, parts), [stage])


def make_parts(
    config: Config, specs: specs_lib.Specs, *, networks: Mapping[str, networks_base.Networks] | None = None
) -> Parts:
    """Returns what the model is made of; arguments and errors as in `build`."""
    networks_of = modalities.build(specs, config.network, config.networks, networks or {}, precision=config.precision)
    head = networks_base.GaussianHead(dim=config.latent_dim, scale_transform=config.scale_transform)
    return Parts(
        config=config,
        joint=joint.Encoder(modalities=networks_of, trunk=mlp.MLP(hidden=config.joint_hidden), head=head),
        condition=Condition(
            modalities=networks_of,
            embedding=nn.Dense(config.condition_dim),
            trunk=mlp.MLP(hidden=config.condition_hidden),
            head=head,
        ),
    )


def init(parts: Parts, key: types.Array) -> types.Params:
    """Returns {"joint": .., "condition": .., "decoders": ..}."""
    return {
        "joint": parts.joint.init(key),
        "condition": parts.condition.init(keys.stream(key, "condition")),
        "decoders": parts.modalities.init_decoders(keys.stream(key, "decoders"), parts.config.latent_dim),
    }


def combine(parts: Parts, params: types.Params, embeddings: types.Array, indices: types.Array) -> closed_form.Posterior:
    """Returns p(z | x_S), given what the observed modalities add `[|S|, B, H]`."""
    del indices
    return closed_form.gaussian_posterior(parts.condition.prior(params["condition"], embeddings.sum(0)))


def loss(
    parts: Parts, params: types.Params, key: types.Array, batch: types.Batch, *, given: types.Array | None = None
) -> tuple[types.Array, base.Metrics]:
    """Returns minus the bound, of conditions drawn or of those `given`, `[M, B]` bool."""
    config, networks = parts.config, parts.modalities
    weights = objectives.rescaling(networks.specs, enabled=config.rescale)
    draw_key, condition_key = jax.random.split(key)
    given = draw_conditions(condition_key, *_shape(networks, batch)) if given is None else given
    posterior = parts.joint.encode(params["joint"], batch)
    prior = conditional_prior(parts, params, batch, given)
    decoded = networks.decode(params["decoders"], distributions.gaussian_sample(draw_key, posterior))
    data = networks.canonical({name: batch[name] for name in networks.names})
    terms = objectives.log_likelihoods(networks.specs, decoded, data)
    kl = distributions.kl_between(posterior, prior)
    value = config.beta * kl - objectives.weighted_sum(terms, weights, ~given)
    metrics = {"kl": kl.mean()}
    metrics |= {f"log_likelihood/{name}": base.mean_of(terms[name], ~given[j]) for j, name in enumerate(networks.names)}
    return value.mean(), metrics


def _shape(networks: modalities.Modalities, batch: types.Batch) -> tuple[int, int]:
    return len(networks.names), len(batch[networks.names[0]])


def draw_conditions(key: types.Array, num: int, size: int) -> types.Array:
    """Returns which of `num` modalities are given in each of `size` examples, `[M, B]` bool: never all of them."""
    count_key, order_key = jax.random.split(key)
    count = jax.random.randint(count_key, (size,), 0, num)
    rank = jax.random.uniform(order_key, (num, size)).argsort(0).argsort(0)
    return rank < count


def conditional_prior(parts: Parts, params: types.Params, batch: types.Batch, given: types.Array) -> types.Gaussian:
    """Returns p(z | x_S) `[B, D]` of the modalities `given`, `[M, B]` bool; N(0, I) where nothing is."""
    each = jnp.stack([parts.condition.embed(params["condition"], name, batch[name]) for name in parts.modalities.names])
    learnt = parts.condition.prior(params["condition"], jnp.where(given[..., None], each, 0).sum(0))
    standard = distributions.standard(learnt.loc.shape, learnt.loc.dtype)
    return jax.tree.map(lambda one, other: jnp.where(given.any(0)[:, None], one, other), learnt, standard)
