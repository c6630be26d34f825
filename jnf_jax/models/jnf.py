"""JNF, joint normalizing flows (Senellart & Allassonniere, arXiv 2502.03952; predecessor arXiv 2305.11832).

Stage 1, `joint`: a VAE on all modalities,

    L1 = E_q(z|X)[ - sum_j lambda_j log p(x_j | z) ] + beta KL( q(z|X) || p(z) ).

Stage 2, `experts`, joint encoder and decoders frozen: every unimodal posterior learns the joint one,

    L2 = - sum_j E_q(z|X)[ log q_j(z | x_j) ],     q_j a Gaussian of x_j seen through a flow that does not depend on x_j.

Any subset's posterior is a product of its experts, sampled by Hamiltonian Monte Carlo (`posteriors.product`). Two stages that are fitted outright
serve it: `marginal`, a density of the codes, after stage 1, and `divisors`, a Gaussian in every expert's base space, after stage 2. Without a
flow (`flows.identity`) the same file is the JNF of plain Gaussian posteriors.

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
import numpy as np

from jnf_jax import configs, distributions, keys, objectives, types
from jnf_jax import specs as specs_lib
from jnf_jax.flows import base as flow_base
from jnf_jax.flows import maf
from jnf_jax.marginals import mixture
from jnf_jax.models import base, joint
from jnf_jax.networks import base as networks_base
from jnf_jax.networks import conv, mlp, modalities
from jnf_jax.posteriors import compiling, divisors, hmc, product
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
      marginal: density fitted to the codes, which `sample_prior` draws from (`marginals.mixture`, `marginals.flow`,
        `marginals.standard_normal`).
      product_rule: how experts are multiplied, a rule of `posteriors.product`; `prior` is the published one.
      num_codes: training examples whose codes the marginal and the divisors are fitted to.
      sampler: the chains behind a product of experts.
      NOT_OF_STAGE: stage -> the fields that it does not depend on.
    """

    NOT_OF_STAGE: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "projector": (
            "latent_dim", "beta", "initial_beta", "annealing", "rescale", "scale_transform", "joint_hidden", "joint_covariance",
            "projected_hidden", "flow", "wide_experts", "marginal", "num_codes", "product_rule", "sampler",
        ),
        "joint": ("projector", "projected_hidden", "flow", "wide_experts", "marginal", "num_codes", "product_rule", "sampler"),
        "marginal": ("projector", "projected_hidden", "flow", "wide_experts", "product_rule", "sampler"),
        "experts": ("marginal", "num_codes", "product_rule", "sampler"),
        "divisors": ("marginal", "product_rule", "sampler"),
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
    marginal: configs.Component = mixture.Config()
    product_rule: product.Kind = "pooled"
    num_codes: int = 10_000
    sampler: hmc.Config = hmc.Config()


@dataclasses.dataclass(frozen=True)
class Parts:
    """What the functions below are made of; no parameters."""

    config: Config
    modalities: modalities.Modalities
    joint: joint.Encoder
    head: networks_base.GaussianHead
    flow: flow_base.Flow
    rule: product.Rule
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
    parts = make_parts(config, specs, networks=networks, joint_trunk=joint_trunk, projector=projector)
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
        log_normaliser=make_log_normaliser(parts),
        elbo=jax.jit(functools.partial(elbo, parts)),
        project=None if parts.projector is None else jax.jit(functools.partial(view, parts), static_argnums=1),
    )


def make_parts(
    config: Config,
    specs: specs_lib.Specs,
    *,
    networks: Mapping[str, networks_base.Networks] | None = None,
    joint_trunk: nn.Module | None = None,
    projector: projectors.Projector | None = None,
) -> Parts:
    """Returns what the model is made of; arguments and errors as in `build`."""
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
    flow = configs.build(config.flow, config.latent_dim)
    return Parts(
        config=config,
        modalities=networks_of,
        joint=joint.Encoder(
            modalities=networks_of,
            trunk=joint_trunk or mlp.MLP(hidden=config.joint_hidden),
            head=head(full=config.joint_covariance == "full"),
        ),
        head=head(),
        flow=flow,
        rule=product.Rule(kind=config.product_rule, flow=flow, marginal=configs.build(config.marginal, config.latent_dim)),
        projector=projector,
        projected=mlp.MLP(hidden=config.projected_hidden),
    )


def stages(parts: Parts) -> tuple[base.Stage, ...]:
    """Returns the stages: of the projector, where there is one to train, the joint VAE, the marginal, the experts and their divisors."""
    config = parts.config
    projected = parts.projector is not None and parts.projector.loss is not None
    vae = base.Stage(
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
    marginal = base.Stage(
        name="marginal",
        trainable=("marginal",),
        loss=functools.partial(marginal_loss, parts) if parts.rule.marginal.by_gradient else None,
        prepare=lambda params, batch: {"joint_posterior": encode_joint(parts, params, batch)},
        solve=functools.partial(solve_marginal, parts),
        needs=("joint",),
    )
    division = base.Stage(
        name="divisors",
        trainable=("divisors",),
        loss=None,
        solve=functools.partial(solve_divisors, parts),
        needs=(*experts.needs, "experts"),
    )
    fitted = (marginal,) if parts.rule.marginal.fit is not None else ()
    if not projected:
        return vae, *fitted, experts, division
    projector = base.Stage(
        name="projector",
        trainable=("projector",),
        loss=lambda params, key, batch: parts.projector.loss(params["projector"], key, parts.modalities.canonical(batch)),
        whole_batches=True,
    )
    return projector, vae, *fitted, experts, division


def init(parts: Parts, key: types.Array) -> types.Params:
    """Returns {"joint": encoders, trunk, head; "decoders"; "projector"; "experts": encoders, heads, stacked flows; "marginal"; "divisors"}."""
    names, dim = parts.modalities.names, parts.config.latent_dim
    whole = parts.joint.init(key)
    features = [parts.modalities.example_features(whole["encoders"], name) for name in names]
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
        "joint": whole,
        "decoders": parts.modalities.init_decoders(keys.stream(key, "decoders"), parts.config.latent_dim),
        "projector": projector,
        "experts": {
            "encoders": experts,
            "heads": heads,
            "flows": jax.vmap(parts.flow.init)(jax.random.split(keys.stream(key, "flows"), len(names))),
        },
        "marginal": parts.rule.marginal.init(keys.stream(key, "marginal")),
        "divisors": {
            "loc": jnp.zeros((len(names), dim)),
            "whitening": jnp.tile(jnp.eye(dim), (len(names), 1, 1)),
            "widest": jnp.ones((len(names), dim)),
        },
    }


def encode_joint(parts: Parts, params: types.Params, observed: types.Batch) -> types.Gaussian:
    """Returns q(z | X), `[B, D]`."""
    return parts.joint.encode(params["joint"], observed)


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
    weights = objectives.rescaling(parts.modalities.specs, enabled=parts.config.rescale)
    posterior = encode_joint(parts, params, batch)
    loss, metrics = joint.negative_elbo(parts.modalities, params["decoders"], key, posterior, batch, beta=beta, weights=weights)
    return loss.mean(), metrics


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


def marginal_loss(
    parts: Parts, params: types.Params, key: types.Array, batch: dict[str, Any]
) -> tuple[types.Array, base.Metrics]:
    """Returns the negative log density of draws of q(z | X) under the marginal."""
    z = distributions.gaussian_sample(key, batch["joint_posterior"])
    return -jax.vmap(functools.partial(parts.rule.marginal.log_density, params["marginal"]))(z).mean(), {}


def solve_marginal(parts: Parts, params: types.Params, key: types.Array, train, validation) -> types.Params:
    """Returns the marginal fitted to draws of q(z | X)."""
    draw = lambda key, batch: distributions.gaussian_sample(key, encode_joint(parts, params, batch))
    codes, held_out = (over_examples(draw, key, data, num=parts.config.num_codes) for data in (train, validation))
    seed = int(jax.random.randint(key, (), 0, 2**31 - 1))
    return {"marginal": jax.tree.map(jnp.asarray, parts.rule.marginal.fit(seed, codes, held_out))}


def solve_divisors(parts: Parts, params: types.Params, key: types.Array, train, validation) -> types.Params:
    """Returns for every expert the Gaussian that codes have in its base space."""
    del validation
    names = parts.modalities.names

    def encode(key, batch):
        z = distributions.gaussian_sample(key, encode_joint(parts, params, batch))
        u = [jax.vmap(functools.partial(parts.flow.forward, flow_of(parts, params, name)))(z)[0] for name in names]
        return u, [encode_expert(parts, params, name, batch[name]).scale for name in names]

    u, scales = over_examples(encode, key, train, num=parts.config.num_codes)
    found = [divisors.by_moments(u_j, scale.max(0)) for u_j, scale in zip(u, scales, strict=True)]
    return {"divisors": jax.tree.map(lambda *leaves: jnp.stack(leaves), *found)._asdict()}


def over_examples(function, key: types.Array, data, *, num: int, batch_size: int = 500):
    """Returns function(key, batch) of the first `num` examples, computed in batches of one shape, on the host."""
    num = min(num, len(next(iter(data.values()))))
    call, found = jax.jit(function), []
    for start in range(0, num, batch_size):
        rows = np.arange(start, start + min(batch_size, num)) % num  # the last batch is filled up; its filling is dropped
        found.append(jax.device_get(call(jax.random.fold_in(key, start), {name: x[rows] for name, x in data.items()})))
    return jax.tree.map(lambda *leaves: np.concatenate(leaves)[:num], *found)


def expert_log_density(parts: Parts, params: types.Params, name: str, gaussian: types.Gaussian, z: types.Array) -> types.Array:
    """Returns log q_j(z | x_j) `[B]` at z `[B, D]`, given the base Gaussians of x_j."""
    flow_params = flow_of(parts, params, name)
    return jax.vmap(lambda gaussian, z: expert.log_density(parts.flow, flow_params, gaussian, z))(gaussian, z)


def flow_of(parts: Parts, params: types.Params, name: str) -> types.Params:
    """Returns the parameters of one modality's flow."""
    index = parts.modalities.names.index(name)
    return jax.tree.map(lambda leaf: leaf[index], params["experts"]["flows"])


def sample_prior(parts: Parts, params: types.Params, key: types.Array, *, num_samples: int) -> types.Array:
    """Returns draws of the marginal, `[S, D]`."""
    return parts.rule.marginal.sample(params["marginal"], key, num_samples=num_samples)


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
    gather = jax.jit(functools.partial(shared_of, parts))

    @functools.partial(jax.jit, static_argnames="num_samples")
    def from_joint(params, key, observed, *, num_samples):
        posterior = encode_joint(parts, params, observed)
        z = jax.vmap(lambda k: distributions.gaussian_sample(k, posterior))(jax.random.split(key, num_samples))
        return z, types.exact_info(z)

    @functools.partial(jax.jit, static_argnames="num_samples")
    def from_expert(shared, key, gaussians, *, num_samples):
        flow_params, gaussian = (
            jax.tree.map(lambda leaf: leaf[0], shared.flows),
            jax.tree.map(lambda leaf: leaf[:, 0], gaussians),
        )
        z = expert.sample_many(parts.flow, flow_params, key, gaussian, num_samples=num_samples)
        return z, types.exact_info(z)

    @functools.partial(compiling.jit, static_argnames="num_samples")
    def from_product(shared, key, gaussians, *, num_samples):
        return product.sample(parts.rule, shared, key, gaussians, num_samples=num_samples, config=parts.config.sampler)

    def sample_posterior(params, key, observed, *, num_samples):
        observed = parts.modalities.ordered(observed)
        if not observed:
            raise ValueError("Expected at least one observed modality; draws of the prior are `sample_prior`.")
        if num_samples < 1:
            raise ValueError(f"Expected at least one sample, got {num_samples}.")
        if len(observed) == len(names):
            return from_joint(params, key, observed, num_samples=num_samples)
        shared = gather(params, jnp.asarray([names.index(name) for name in observed]))
        gaussians = [encode(params, name, x) for name, x in observed.items()]
        gaussians = jax.tree.map(lambda *g: jnp.stack(g, axis=1), *gaussians)  # [B, |S|, D]
        if len(observed) == 1:
            return from_expert(shared, key, gaussians, num_samples=num_samples)
        return from_product(shared, key, gaussians, num_samples=num_samples)

    return sample_posterior


def shared_of(parts: Parts, params: types.Params, indices: types.Array) -> product.Shared:
    """Returns what a product of the modalities of these indices `[|S|]` needs beside the observation."""
    take = functools.partial(jax.tree.map, lambda leaf: leaf[indices])
    return product.Shared(
        flows=take(params["experts"]["flows"]),
        divisors=product.Divisors(**take(params["divisors"])),
        marginal=params["marginal"],
    )


def posterior_log_density(parts: Parts, params: types.Params, observed: types.Batch, z: types.Array) -> types.Array:
    """Returns log q(z | x_S) `[.., B]` at z `[.., 1 or B, D]`: normalised for one modality and for all, up to a constant in between.

    In between it is the density that chains sample, the wall that confines them included.
    """
    observed = parts.modalities.ordered(observed)
    names = parts.modalities.names
    if len(observed) == len(names):
        return distributions.gaussian_log_prob(encode_joint(parts, params, observed), z)
    base = jax.tree.map(
        lambda *g: jnp.stack(g, axis=1), *(encode_expert(parts, params, name, x) for name, x in observed.items())
    )
    shared = shared_of(parts, params, jnp.asarray([names.index(name) for name in observed]))
    density = product.log_densities(parts.rule, shared, base, z)
    if len(observed) == 1:
        return density
    return density - product.wall(z, parts.config.sampler.outside)


def make_log_normaliser(parts: Parts):
    """Returns `log_normaliser(params, key, observed, *, config)` -> `[B]`, compiled once for each number of experts."""
    names = parts.modalities.names
    encode = jax.jit(functools.partial(encode_expert, parts), static_argnums=1)
    outside = parts.config.sampler.outside

    @functools.partial(compiling.jit, static_argnames="config")
    def of_product(shared, key, gaussians, *, config):
        return product.log_normaliser(parts.rule, shared, key, gaussians, outside=outside, config=config)

    def log_normaliser(params, key, observed, *, config):
        observed = parts.modalities.ordered(observed)
        gaussians = jax.tree.map(lambda *g: jnp.stack(g, axis=1), *(encode(params, name, x) for name, x in observed.items()))
        if len(observed) in (1, len(names)):
            return jnp.zeros(len(gaussians.loc))
        shared = shared_of(parts, params, jnp.asarray([names.index(name) for name in observed]))
        return of_product(shared, key, gaussians, config=config)

    return log_normaliser


def elbo(parts: Parts, params: types.Params, key: types.Array, observed: types.Batch) -> types.Array:
    """Returns a one-draw estimate `[B]` of the joint ELBO, at beta = 1 and without rescaling.

    Raises:
      ValueError: if a modality is missing.
    """
    observed = parts.modalities.ordered(observed)
    if len(observed) < len(parts.modalities.names):
        raise ValueError(f"Expected all of {list(parts.modalities.names)} for the joint ELBO, got {list(observed)}.")
    loss, _ = joint.negative_elbo(
        parts.modalities, params["decoders"], key, encode_joint(parts, params, observed), observed,
        beta=1.0, weights=dict.fromkeys(observed, 1.0),
    )  # fmt: skip
    return -loss


def log_likelihood(
    parts: Parts, params: types.Params, key: types.Array, observed: types.Batch, *, num_importance: int
) -> types.Array:
    """Returns log p(x_S) `[B]` by importance sampling from the joint posterior (all modalities) or from the mixture of the experts observed.

    A product has no normalised density to weigh its draws by; the mixture has. The more experts there are, the more draws it wants. Draws
    come from the experts in turn.

    Raises:
      ValueError: if no importance sample is asked for.
    """
    if num_importance < 1:
        raise ValueError(f"Expected at least one importance sample, got {num_importance}.")
    observed = parts.modalities.ordered(observed)
    data = parts.modalities.canonical(observed)
    if len(observed) == len(parts.modalities.names):
        posterior = encode_joint(parts, params, observed)
        propose = lambda key, number: distributions.gaussian_sample(key, posterior)
        density = lambda z: distributions.gaussian_log_prob(posterior, z)
    else:
        propose, density = mixture_of_experts(parts, params, observed)

    def log_weight(xs):
        z = propose(*xs)
        decoded = parts.modalities.decode(params["decoders"], z)
        terms = objectives.log_likelihoods(parts.modalities.specs, decoded, data)
        return sum(terms.values()) + distributions.standard_normal_log_prob(z) - density(z)

    keys_and_numbers = jax.random.split(key, num_importance), jnp.arange(num_importance)
    return objectives.importance_log_likelihood(jax.lax.map(log_weight, keys_and_numbers))


def mixture_of_experts(parts: Parts, params: types.Params, observed: types.Batch):
    """Returns (key, number) -> draws `[B, D]` of the expert whose turn it is, and the log density `[B]` of the mixture of all of them."""
    num = len(observed)
    indices = jnp.asarray([parts.modalities.names.index(name) for name in observed])
    flows = shared_of(parts, params, indices).flows
    bases = jax.tree.map(lambda *g: jnp.stack(g), *(encode_expert(parts, params, name, x) for name, x in observed.items()))

    def propose(key, number):
        one = jax.tree.map(lambda leaf: leaf[number % num], (flows, bases))
        return expert.sample_many(parts.flow, one[0], key, one[1], num_samples=1)[0]

    def density(z):
        each = jax.vmap(lambda flow, base: expert.log_densities(parts.flow, flow, base, z))(flows, bases)
        return jax.nn.logsumexp(each, axis=0) - jnp.log(num)

    return propose, density
