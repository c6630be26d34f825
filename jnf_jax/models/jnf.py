"""JNF, joint normalizing flows (Senellart & Allassonniere, arXiv 2502.03952; predecessor arXiv 2305.11832).

Stage 1, `joint`: a VAE on all modalities,

    L1 = E_q(z|X)[ - sum_j lambda_j log p(x_j | z) ] + beta KL( q(z|X) || p(z) ).

Stage 2, `experts`, joint encoder and decoders frozen: every unimodal posterior learns the joint one,

    L2 = - sum_j E_q(z|X)[ log q_j(z | x_j) ],     q_j a Gaussian of x_j seen through a flow that does not depend on x_j.

Any subset's posterior is the product of its experts over p(z)^(|S|-1), sampled by Hamiltonian Monte Carlo. Without a flow
(`flows.identity`) the same file is the JNF of plain Gaussian posteriors.

JNF-Shared has a stage before these, `projector`: functions g_j that keep what modalities share, frozen afterwards; the experts are then
q_j(z | g_j(x_j)).
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from jnf_jax import configs, distributions, keys, objectives, types
from jnf_jax import specs as specs_lib
from jnf_jax.flows import base as flow_base
from jnf_jax.flows import maf
from jnf_jax.models import base
from jnf_jax.networks import base as networks_base
from jnf_jax.networks import conv, mlp, modalities
from jnf_jax.posteriors import compiling, hmc, product
from jnf_jax.posteriors import flow as expert
from jnf_jax.projectors import base as projectors


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(configs.Component):
    """JNF.

    Attributes:
      latent_dim: D.
      beta: weight of the KL term in stage 1.
      initial_beta: weight that stage 1 begins with, to come down to `beta` by equal factors: codes are laid out while only what matters most
        is worth its nats, and not torn apart by details learnt first; None: `beta` all along.
      annealing: share of stage 1's steps that the descent takes.
      rescale: whether each modality's likelihood is weighted by max_k dim(x_k) / dim(x_j) in stage 1.
      scale_transform: `softplus` or `exp`: how encoders make a scale positive.
      network: encoder and decoder of every modality (`networks.mlp`, `networks.conv`, `networks.resnet`).
      networks: exceptions to `network`, by modality.
      precision: what these networks compute in, `float32` or `bfloat16`; parameters, densities, flows and chains stay in float32.
      joint_hidden: widths of the layers between the concatenated heads and the joint posterior.
      joint_covariance: of the joint posterior: `diagonal`, as published, or `full`, D (D - 1) / 2 more outputs, for a few dimensions.
      projector: what the experts see of an observation (`projectors.contrastive`, `projectors.dcca`); None: all of it.
      projected_hidden: widths of the layers between a projection and its expert's base Gaussian.
      flow: the flow of every expert.
      wide_experts: whether an expert's base Gaussian may be wider than the prior. No true posterior has a heavier tail than the
        prior, p(z|x) / p(z) being p(x|z) / p(x); where experts may, their product over p(z)^(|S|-1) is easily improper. Off, an
        expert's precision is 1 + 1/s^2, s the encoder's scale: the prior's and what x_j adds.
      sampler: the chains behind a product of experts.
      NOT_OF_STAGE: stage -> the fields that it does not depend on.
    """

    NOT_OF_STAGE: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "projector": (
            "latent_dim", "beta", "initial_beta", "annealing", "rescale", "scale_transform", "joint_hidden", "joint_covariance",
            "projected_hidden", "flow", "wide_experts", "sampler",
        ),
        "joint": ("projector", "projected_hidden", "flow", "wide_experts", "sampler"),
        "experts": ("sampler",),
    }  # fmt: skip

    latent_dim: int = 32
    beta: float = 1.0
    initial_beta: float | None = None
    annealing: float = 0.5
    rescale: bool = False
    scale_transform: Literal["softplus", "exp"] = "softplus"
    network: configs.Component = conv.Config()
    networks: Mapping[str, configs.Component] = dataclasses.field(default_factory=dict)
    precision: modalities.Precision = "float32"
    joint_hidden: tuple[int, ...] = (512,)
    joint_covariance: Literal["diagonal", "full"] = "diagonal"
    projector: configs.Component | None = None
    projected_hidden: tuple[int, ...] = (512, 512)
    flow: configs.Component = maf.Config()
    wide_experts: bool = False
    sampler: hmc.Config = hmc.Config()


@dataclasses.dataclass(frozen=True)
class Parts:
    """What the functions below are made of; no parameters."""

    config: Config
    modalities: modalities.Modalities
    trunk: nn.Module  # concatenated features of all modalities [B, F] -> [B, H]
    joint_head: networks_base.GaussianHead
    head: networks_base.GaussianHead
    flow: flow_base.Flow
    projector: projectors.Projector | None
    projected: nn.Module  # g_j(x_j) [B, K] -> [B, H]


def build(
    config: Config,
    specs: specs_lib.Specs,
    *,
    networks: Mapping[str, networks_base.Networks] | None = None,
    joint_trunk: nn.Module | None = None,
    projector: projectors.Projector | None = None,
) -> base.Model:
    """Returns the model.

    Args:
      config: its settings.
      specs: modality -> spec.
      networks: linen modules of your own in place of the configured ones, by modality.
      joint_trunk: a linen module of your own, `[B, F]` concatenated features -> `[B, H]`, in place of the MLP of `joint_hidden`.
      projector: one of your own in place of the configured one, for instance frozen features (`projectors.base.given`).

    Raises:
      ValueError: if there are fewer than two modalities, a network is given for an unknown one, or a number makes no sense.
    """
    if config.latent_dim < 1:
        raise ValueError(f"Expected a latent dimension of at least 1, got {config.latent_dim}.")
    if not config.beta > 0:
        raise ValueError(f"Expected a positive beta, got {config.beta}.")
    if config.initial_beta is not None and not (config.initial_beta > 0 and 0 < config.annealing <= 1):
        raise ValueError(
            f"Expected a positive initial_beta and an annealing in (0, 1], got {config.initial_beta} and {config.annealing}."
        )
    networks_of = modalities.build(specs, config.network, config.networks, networks or {}, precision=config.precision)
    if projector is None and config.projector is not None:
        projector = configs.build(config.projector, networks_of)
    if config.joint_covariance not in ("diagonal", "full"):
        raise ValueError(f"Expected a joint_covariance 'diagonal' or 'full', got {config.joint_covariance!r}.")
    head = functools.partial(networks_base.GaussianHead, dim=config.latent_dim, scale_transform=config.scale_transform)
    parts = Parts(
        config=config,
        modalities=networks_of,
        trunk=joint_trunk or mlp.MLP(hidden=config.joint_hidden),
        joint_head=head(full=config.joint_covariance == "full"),
        head=head(),
        flow=configs.build(config.flow, config.latent_dim),
        projector=projector,
        projected=mlp.MLP(hidden=config.projected_hidden),
    )
    return base.Model(
        specs=specs,
        latent_dim=config.latent_dim,
        init=functools.partial(init, parts),
        stages=stages(parts),
        sample_prior=jax.jit(functools.partial(sample_prior, parts), static_argnames="num_samples"),
        sample_posterior=make_sampler(parts),
        posterior_log_density=jax.jit(functools.partial(posterior_log_density, parts)),
        decode=jax.jit(lambda params, z: parts.modalities.decode(params["decoders"], z)),
        log_likelihood=jax.jit(functools.partial(log_likelihood, parts), static_argnames="num_importance"),
        elbo=jax.jit(functools.partial(elbo, parts)),
        project=None if projector is None else jax.jit(functools.partial(view, parts), static_argnums=1),
    )


def stages(parts: Parts) -> tuple[base.Stage, ...]:
    """Returns the stages: the projector's, where there is one to train, the joint VAE's and the experts'."""
    config = parts.config
    projected = parts.projector is not None and parts.projector.loss is not None
    joint = base.Stage(
        name="joint",
        trainable=("joint", "decoders"),
        loss=functools.partial(joint_loss, parts, config.beta),
        annealed=None if config.initial_beta is None else functools.partial(annealed_joint_loss, parts),
    )
    experts = base.Stage(
        name="experts",
        trainable=("experts",),
        loss=functools.partial(expert_loss, parts),
        prepare=functools.partial(prepare_experts, parts),
        begin=begin_experts if parts.projector is None else None,
        needs=("projector", "joint") if projected else ("joint",),
    )
    if not projected:
        return joint, experts
    projector = base.Stage(
        name="projector",
        trainable=("projector",),
        loss=lambda params, key, batch: parts.projector.loss(params["projector"], key, parts.modalities.canonical(batch)),
        whole_batches=True,
    )
    return projector, joint, experts


def init(parts: Parts, key: types.Array) -> types.Params:
    """Returns {"joint": encoders, trunk, head; "decoders"; "projector"; "experts": encoders, heads, stacked flows}."""
    names = parts.modalities.names
    joint = parts.modalities.init_encoders(keys.stream(key, "joint"))
    features = [parts.modalities.example_features(joint, name) for name in names]
    trunk = parts.trunk.init(keys.stream(key, "trunk"), jnp.concatenate(features, axis=-1))
    hidden = parts.trunk.apply(trunk, jnp.concatenate(features, axis=-1))
    if parts.projector is None:
        projector, experts = {}, parts.modalities.init_encoders(keys.stream(key, "experts"))
    else:
        projector, experts, features = parts.projector.init(keys.stream(key, "projector")), {}, []
        for name in names:
            example = jnp.zeros((1, *parts.modalities.specs[name].shape), jnp.uint8)
            projection = view(parts, {"projector": projector}, name, example)
            experts[name] = parts.projected.init(keys.stream(key, f"projected {name}"), projection)
            features.append(parts.projected.apply(experts[name], projection))
    heads = {name: parts.head.init(keys.stream(key, f"head {name}"), f) for name, f in zip(names, features, strict=True)}
    return {
        "joint": {"encoders": joint, "trunk": trunk, "head": parts.joint_head.init(keys.stream(key, "head"), hidden)},
        "decoders": parts.modalities.init_decoders(keys.stream(key, "decoders"), parts.config.latent_dim),
        "projector": projector,
        "experts": {
            "encoders": experts,
            "heads": heads,
            "flows": jax.vmap(parts.flow.init)(jax.random.split(keys.stream(key, "flows"), len(names))),
        },
    }


def encode_joint(parts: Parts, params: types.Params, observed: types.Batch) -> types.Gaussian:
    """Returns q(z | X), `[B, D]`."""
    joint = params["joint"]
    features = [parts.modalities.features(joint["encoders"], name, observed[name]) for name in parts.modalities.names]
    return parts.joint_head.apply(joint["head"], parts.trunk.apply(joint["trunk"], jnp.concatenate(features, axis=-1)))


def view(parts: Parts, params: types.Params, name: str, x: types.Array) -> types.Array:
    """Returns what an expert sees of x_j: x_j itself, or g_j(x_j) `[B, K]`."""
    if parts.projector is None:
        return x
    return parts.projector.project(params["projector"], name, distributions.canonical(parts.modalities.specs[name], x))


def encode_expert(parts: Parts, params: types.Params, name: str, x: types.Array) -> types.Gaussian:
    """Returns the base Gaussian of q_j(z | x_j), `[B, D]`."""
    return encode_view(parts, params, name, view(parts, params, name, x))


def encode_view(parts: Parts, params: types.Params, name: str, seen: types.Array) -> types.Gaussian:
    """Returns the base Gaussian of an expert, `[B, D]`, given its `view`."""
    experts = params["experts"]
    if parts.projector is None:
        features = parts.modalities.features(experts["encoders"], name, seen)
    else:
        features = parts.projected.apply(experts["encoders"][name], seen)
    gaussian = parts.head.apply(experts["heads"][name], features)
    if parts.config.wide_experts:
        return gaussian
    return gaussian._replace(scale=jax.lax.rsqrt(1 + gaussian.scale**-2))


def annealed_joint_loss(
    parts: Parts, params: types.Params, key: types.Array, batch: types.Batch, progress: types.Array
) -> tuple[types.Array, base.Metrics]:
    """Returns L1 with the weight of the KL term at a share `progress` of stage 1."""
    first, last = parts.config.initial_beta, parts.config.beta
    beta = first * (last / first) ** jnp.minimum(progress / parts.config.annealing, 1.0)
    loss, metrics = joint_loss(parts, beta, params, key, batch)
    return loss, {"beta": beta, **metrics}


def joint_loss(
    parts: Parts, beta: types.Array | float, params: types.Params, key: types.Array, batch: types.Batch
) -> tuple[types.Array, base.Metrics]:
    """Returns L1, the negative ELBO with its weights."""
    specs = parts.modalities.specs
    weights = objectives.rescaling(specs, enabled=parts.config.rescale)
    posterior = encode_joint(parts, params, batch)
    z = distributions.gaussian_sample(key, posterior)
    decoded = parts.modalities.decode(params["decoders"], z)
    terms = objectives.log_likelihoods(specs, decoded, parts.modalities.canonical(batch))
    reconstruction = -sum(weights[name] * term for name, term in terms.items())
    kl = distributions.kl_to_standard_normal(posterior)
    metrics = {"kl": kl.mean(), **{f"log_likelihood/{name}": term.mean() for name, term in terms.items()}}
    return (reconstruction + beta * kl).mean(), metrics


def begin_experts(params: types.Params) -> types.Params:
    """Returns params whose experts start from the joint encoder's own network of their modality, which knows what matters in it."""
    return {**params, "experts": {**params["experts"], "encoders": params["joint"]["encoders"]}}


def prepare_experts(parts: Parts, params: types.Params, batch: types.Batch) -> dict[str, Any]:
    """Returns what experts see of the batch, beside the frozen q(z | X): stage 2 runs neither projectors nor the joint encoder."""
    views = {name: view(parts, params, name, x) for name, x in batch.items()}
    return {"joint_posterior": encode_joint(parts, params, batch), "views": views}


def expert_loss(
    parts: Parts, params: types.Params, key: types.Array, batch: dict[str, Any]
) -> tuple[types.Array, base.Metrics]:
    """Returns L2, the negative log densities of draws of q(z | X) under all experts."""
    z = distributions.gaussian_sample(key, batch["joint_posterior"])
    densities = {
        name: expert_log_density(parts, params, name, encode_view(parts, params, name, seen), z)
        for name, seen in batch["views"].items()
    }
    return -sum(densities.values()).mean(), {f"log_density/{name}": d.mean() for name, d in densities.items()}


def expert_log_density(parts: Parts, params: types.Params, name: str, gaussian: types.Gaussian, z: types.Array) -> types.Array:
    """Returns log q_j(z | x_j) `[B]` at z `[B, D]`, given the base Gaussians of x_j."""
    flow_params = flow_of(parts, params, name)
    return jax.vmap(lambda gaussian, z: expert.log_density(parts.flow, flow_params, gaussian, z))(gaussian, z)


def flow_of(parts: Parts, params: types.Params, name: str) -> types.Params:
    """Returns the parameters of one modality's flow."""
    index = parts.modalities.names.index(name)
    return jax.tree.map(lambda leaf: leaf[index], params["experts"]["flows"])


def sample_prior(parts: Parts, params: types.Params, key: types.Array, *, num_samples: int) -> types.Array:
    """Returns draws of p(z), `[S, D]`."""
    del params
    return jax.random.normal(key, (num_samples, parts.config.latent_dim))


def make_sampler(parts: Parts):
    """Returns `sample_posterior(params, key, observed, *, num_samples)` -> (z `[S, B, D]`, Info).

    What cannot be drawn, for an observation with NaN for instance, shows in Info as `improper`, with R-hat NaN.
    One modality: exact draws of its flow. All of them: exact draws of the joint encoder. In between: the product of experts by HMC;
    behind the S draws of an observation stand `sampler.num_chains` chains of `sampler.num_warmup` iterations and
    max(`thinning` * ceil(S / chains), `min_iterations`) more (4 chains of 30 + 20 iterations for up to 40 draws by default).
    Encoders run once per observation; the product is compiled once for each number of experts, whichever they are.

    Raises (the function returned):
      ValueError: if nothing is observed, a modality is unknown or of the wrong shape, or no sample is asked for.
    """
    names = parts.modalities.names
    encode = jax.jit(functools.partial(encode_expert, parts), static_argnums=1)
    gather = jax.jit(lambda params, indices: jax.tree.map(lambda leaf: leaf[indices], params["experts"]["flows"]))

    @functools.partial(jax.jit, static_argnames="num_samples")
    def from_joint(params, key, observed, *, num_samples):
        posterior = encode_joint(parts, params, observed)
        z = jax.vmap(lambda k: distributions.gaussian_sample(k, posterior))(jax.random.split(key, num_samples))
        return z, types.exact_info(z)

    @functools.partial(jax.jit, static_argnames="num_samples")
    def from_expert(flows, key, gaussians, *, num_samples):
        flow_params, gaussian = (jax.tree.map(lambda leaf: leaf[0], flows), jax.tree.map(lambda leaf: leaf[:, 0], gaussians))
        z = expert.sample_many(parts.flow, flow_params, key, gaussian, num_samples=num_samples)
        return z, types.exact_info(z)

    @functools.partial(compiling.jit, static_argnames="num_samples")
    def from_product(flows, key, gaussians, *, num_samples):
        config = parts.config.sampler
        return product.sample(parts.flow, flows, key, gaussians, num_samples=num_samples, config=config)

    def sample_posterior(params, key, observed, *, num_samples):
        observed = parts.modalities.ordered(observed)
        if not observed:
            raise ValueError("Expected at least one observed modality; draws of the prior are `sample_prior`.")
        if num_samples < 1:
            raise ValueError(f"Expected at least one sample, got {num_samples}.")
        if len(observed) == len(names):
            return from_joint(params, key, observed, num_samples=num_samples)
        flows = gather(params, jnp.asarray([names.index(name) for name in observed]))
        gaussians = [encode(params, name, x) for name, x in observed.items()]
        gaussians = jax.tree.map(lambda *g: jnp.stack(g, axis=1), *gaussians)  # [B, |S|, D]
        if len(observed) == 1:
            return from_expert(flows, key, gaussians, num_samples=num_samples)
        return from_product(flows, key, gaussians, num_samples=num_samples)

    return sample_posterior


def posterior_log_density(parts: Parts, params: types.Params, observed: types.Batch, z: types.Array) -> types.Array:
    """Returns log q(z | x_S) `[.., B]` at z `[.., 1 or B, D]`: normalised for one modality and for all, up to a constant in between.

    In between it is the product itself, without the wall that confines its chains.
    """
    observed = parts.modalities.ordered(observed)
    names = parts.modalities.names
    if len(observed) == len(names):
        return distributions.gaussian_log_prob(encode_joint(parts, params, observed), z)
    density = -product.power(len(observed)) * distributions.standard_normal_log_prob(z)
    for name, x in observed.items():
        base = encode_expert(parts, params, name, x)
        density += expert.log_densities(parts.flow, flow_of(parts, params, name), base, z)
    return density


def elbo(parts: Parts, params: types.Params, key: types.Array, observed: types.Batch) -> types.Array:
    """Returns a one-draw estimate `[B]` of the joint ELBO, at beta = 1 and without rescaling.

    Raises:
      ValueError: if a modality is missing.
    """
    observed = parts.modalities.ordered(observed)
    if len(observed) < len(parts.modalities.names):
        raise ValueError(f"Expected all of {list(parts.modalities.names)} for the joint ELBO, got {list(observed)}.")
    posterior = encode_joint(parts, params, observed)
    decoded = parts.modalities.decode(params["decoders"], distributions.gaussian_sample(key, posterior))
    terms = objectives.log_likelihoods(parts.modalities.specs, decoded, parts.modalities.canonical(observed))
    return sum(terms.values()) - distributions.kl_to_standard_normal(posterior)


def log_likelihood(
    parts: Parts, params: types.Params, key: types.Array, observed: types.Batch, *, num_importance: int
) -> types.Array:
    """Returns log p(x_S) `[B]` by importance sampling from the joint posterior (all modalities) or from one expert.

    Raises:
      ValueError: if several modalities, but not all, are observed, or no importance sample is asked for.
    """
    if num_importance < 1:
        raise ValueError(f"Expected at least one importance sample, got {num_importance}.")
    observed = parts.modalities.ordered(observed)
    data = parts.modalities.canonical(observed)
    if len(observed) == len(parts.modalities.names):
        posterior = encode_joint(parts, params, observed)
        propose = lambda key: distributions.gaussian_sample(key, posterior)
        density = lambda z: distributions.gaussian_log_prob(posterior, z)
    elif len(observed) == 1:
        ((name, x),) = observed.items()
        gaussian, flow_params = encode_expert(parts, params, name, x), flow_of(parts, params, name)
        propose = lambda key: expert.sample_many(parts.flow, flow_params, key, gaussian, num_samples=1)[0]
        density = lambda z: expert_log_density(parts, params, name, gaussian, z)
    else:
        raise ValueError(f"Expected one modality or all of {list(parts.modalities.names)}, got {list(observed)}.")

    def log_weight(key):
        z = propose(key)
        decoded = parts.modalities.decode(params["decoders"], z)
        terms = objectives.log_likelihoods(parts.modalities.specs, decoded, data)
        return sum(terms.values()) + distributions.standard_normal_log_prob(z) - density(z)

    return objectives.importance_log_likelihood(jax.lax.map(log_weight, jax.random.split(key, num_importance)))
