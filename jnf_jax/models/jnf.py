"""JNF, joint normalizing flows (Senellart & Allassonniere, arXiv 2502.03952; predecessor arXiv 2305.11832).

Stage 1, `joint`: a VAE on all modalities,

    L1 = E_q(z|X)[ - sum_j lambda_j log p(x_j | z) ] + beta KL( q(z|X) || p(z) ).

Stage 2, `experts`, joint encoder and decoders frozen: every unimodal posterior learns the joint one,

    L2 = - sum_j E_q(z|X)[ log q_j(z | x_j) ],     q_j a Gaussian of x_j seen through a flow that does not depend on x_j.

Of examples that lack modalities (`incomplete`), stage 1 takes the terms they have, their joint posterior being that of what they have, and stage 2 trains the
experts of what they have. If every q(z|x_S) is the true one, so is its mean given x_j, whatever else is missing at random: experts learn the same as from complete examples.

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

from jnf_jax import configs, distributions, keys, objectives, types
from jnf_jax import specs as specs_lib
from jnf_jax.flows import maf
from jnf_jax.marginals import mixture
from jnf_jax.models import base, experts, fitted, joint, sampled
from jnf_jax.networks import base as networks_base
from jnf_jax.networks import conv, mlp, modalities
from jnf_jax.posteriors import divisors, hmc, product
from jnf_jax.projectors import base as projectors


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(configs.Component):
    """JNF.

    Attributes:
      latent_dim: D.
      beta: weight of the KL term in stage 1.
      initial_beta: weight of the KL term at the start of stage 1. It moves geometrically to `beta`. Above `beta`, coarse structure is learnt
        first; below it, small details are not ignored. None: `beta` throughout.
      annealing: share of stage 1's steps over which the weight moves.
      rescale: whether each modality's likelihood is weighted by max_k dim(x_k) / dim(x_j) in stage 1.
      scale_transform: `softplus` or `exp`: how encoders make a scale positive.
      network: encoder and decoder of every modality (`networks.mlp`, `networks.conv`, `networks.resnet`).
      networks: exceptions to `network`, by modality.
      precision: what these networks compute in, `float32` or `bfloat16`; parameters, densities, flows and chains stay in float32.
      joint_hidden: widths of the layers between the concatenated heads and the joint posterior.
      incomplete: whether it is for examples that lack modalities: its joint encoder sees which an example has.
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
      num_codes: training examples whose codes the marginal and the divisors are fitted to. Of examples that lack modalities a marginal that
        is fitted outright takes the most complete ones, a quarter of this number at least.
      sampler: the chains behind a product of experts.
      NOT_OF_STAGE: stage -> the fields that it does not depend on.
    """

    NOT_OF_STAGE: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "projector": (
            "latent_dim", "beta", "initial_beta", "annealing", "rescale", "scale_transform", "joint_hidden", "incomplete", "joint_covariance",
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
    incomplete: bool = False
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
    shared: sampled.Parts

    @property
    def modalities(self) -> modalities.Modalities:
        """The networks."""
        return self.experts.modalities

    @property
    def experts(self) -> experts.Experts:
        """The unimodal posteriors."""
        return self.shared.experts


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
        config=config,
        specs=specs,
        latent_dim=config.latent_dim,
        init=functools.partial(init, parts),
        stages=stages(parts),
        sample_prior=jax.jit(functools.partial(sampled.sample_prior, parts.shared), static_argnames="num_samples"),
        sample_posterior=sampled.make_sampler(parts.shared),
        posterior_log_density=sampled.make_log_density(parts.shared),
        decode=base.make_decode(lambda params, z: parts.modalities.decode(params["decoders"], z), config.latent_dim),
        log_likelihood=sampled.make_log_likelihood(parts.shared),
        log_normaliser=sampled.make_log_normaliser(parts.shared),
        elbo=jax.jit(functools.partial(sampled.elbo, parts.shared)),
        project=None if parts.experts.projector is None else jax.jit(functools.partial(view, parts), static_argnums=1),
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
    shared = sampled.Parts(
        joint=joint.Encoder(
            modalities=networks_of,
            trunk=joint_trunk or mlp.MLP(hidden=config.joint_hidden),
            head=head(full=config.joint_covariance == "full"),
            incomplete=config.incomplete,
        ),
        experts=experts.Experts(
            modalities=networks_of,
            head=head(),
            flow=flow,
            wide=config.wide_experts,
            projector=projector,
            projected=mlp.MLP(hidden=config.projected_hidden),
        ),
        rule=product.Rule(kind=config.product_rule, flow=flow, marginal=configs.build(config.marginal, config.latent_dim)),
        sampler=config.sampler,
    )
    return Parts(config=config, shared=shared)


def stages(parts: Parts) -> tuple[base.Stage, ...]:
    """Returns the stages: of the projector, where there is one to train, the joint VAE, the marginal, the experts and their divisors."""
    config, projector = parts.config, parts.experts.projector
    learnt = projector is not None and projector.loss is not None
    vae = base.Stage(
        name="joint",
        trainable=("joint", "decoders"),
        loss=functools.partial(joint_loss, parts, config.beta),
        annealed=None if config.initial_beta is None else functools.partial(annealed_joint_loss, parts),
        annealing=0.0 if config.initial_beta is None else config.annealing,
        incomplete=config.incomplete,
    )
    learners = base.Stage(
        name="experts",
        trainable=("experts",),
        loss=functools.partial(expert_loss, parts),
        prepare=functools.partial(prepare_experts, parts),
        begin=begin_experts if projector is None else None,
        needs=("projector", "joint") if learnt else ("joint",),
        incomplete=config.incomplete,
    )
    found = []
    if learnt:
        loss = functools.partial(projector_loss, parts)
        stage = base.Stage(
            name="projector",
            trainable=("projector",),
            loss=loss,
            whole_batches=True,
            incomplete=projector.incomplete,
            least_pairs=projector.least_pairs,
        )
        found.append(stage)
    found.append(vae)
    if parts.shared.rule.marginal.fit is not None:
        found.append(fitted.marginal_stage(parts.shared, num_codes=config.num_codes))
    found.append(learners)
    found.append(fitted.divisors_stage(parts.shared, num_codes=config.num_codes, needs=(*learners.needs, "experts")))
    return tuple(found)


def init(parts: Parts, key: types.Array) -> types.Params:
    """Returns {"joint": encoders, trunk, head; "decoders"; "projector"; "experts": encoders, heads, stacked flows; "marginal"; "divisors"}."""
    projector = {} if parts.experts.projector is None else parts.experts.projector.init(keys.stream(key, "projector"))
    return {
        "joint": parts.shared.joint.init(key),
        "decoders": parts.modalities.init_decoders(keys.stream(key, "decoders"), parts.config.latent_dim),
        "projector": projector,
        "experts": parts.experts.init(key, projector),
        "marginal": parts.shared.rule.marginal.init(keys.stream(key, "marginal")),
        "divisors": divisors.identity(len(parts.modalities.names), parts.config.latent_dim)._asdict(),
    }


def encode_joint(parts: Parts, params: types.Params, observed: types.Batch) -> types.Gaussian:
    """Returns q(z | X), `[B, D]`."""
    return sampled.encode_joint(parts.shared, params, observed)


def view(parts: Parts, params: types.Params, name: str, x: types.Array) -> types.Array:
    """Returns what an expert sees of x_j: x_j itself, or g_j(x_j) `[B, K]`."""
    return parts.experts.view(params["projector"], name, x)


def projector_loss(
    parts: Parts, params: types.Params, key: types.Array, batch: types.Batch
) -> tuple[types.Array, base.Metrics]:
    """Returns what the projector minimises."""
    data = {name: batch[name] for name in parts.modalities.names}
    return parts.experts.projector.loss(params["projector"], key, parts.modalities.canonical(data) | _masks(batch))


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
    views = {name: view(parts, params, name, batch[name]) for name in parts.modalities.names}
    return {"joint_posterior": encode_joint(parts, params, batch), "views": views, **_masks(batch)}


def expert_loss(
    parts: Parts, params: types.Params, key: types.Array, batch: dict[str, Any]
) -> tuple[types.Array, base.Metrics]:
    """Returns L2, the negative log densities of draws of q(z | X) under the experts of what the examples have."""
    z = distributions.gaussian_sample(key, batch["joint_posterior"])
    present = parts.modalities.present(batch.get(types.MASKS, {}), len(z))
    densities = {
        name: parts.experts.log_density(params["experts"], name, parts.experts.encode_view(params["experts"], name, seen), z)
        for name, seen in batch["views"].items()
    }
    densities = {name: densities[name] for name in parts.modalities.names}
    total = objectives.weighted_sum(densities, dict.fromkeys(densities, 1.0), present)
    means = {f"log_density/{name}": base.mean_of(d, there) for (name, d), there in zip(densities.items(), present, strict=True)}
    return -total.mean(), means


def _masks(batch: types.Batch) -> types.Batch:
    """Returns the batch's entry that says what examples have, if there is one."""
    return {types.MASKS: batch[types.MASKS]} if types.MASKS in batch else {}
