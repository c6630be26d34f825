"""JNF, joint normalizing flows (Senellart & Allassonniere, arXiv 2502.03952; predecessor arXiv 2305.11832).

Stage 1, `joint`: a VAE on all modalities,

    L1 = E_q(z|X)[ - sum_j lambda_j log p(x_j | z) ] + beta KL( q(z|X) || p(z) ).

Stage 2, `experts`, joint encoder and decoders frozen: every unimodal posterior learns the joint one,

    L2 = - sum_j E_q(z|X)[ log q_j(z | x_j) ],     q_j a Gaussian of x_j seen through a flow that does not depend on x_j.

Any subset's posterior is the product of its experts over p(z)^(|S|-1), sampled by Hamiltonian Monte Carlo. Without a flow
(`flows.identity`) the same file is the JNF of plain Gaussian posteriors.
"""

import dataclasses
from collections.abc import Mapping
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from jnf_jax import configs, distributions, keys, objectives, subsets, types
from jnf_jax import specs as specs_lib
from jnf_jax.flows import maf
from jnf_jax.models import base
from jnf_jax.networks import base as networks_base
from jnf_jax.networks import conv, mlp
from jnf_jax.posteriors import flow as expert
from jnf_jax.posteriors import hmc, product


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(configs.Component):
    """JNF.

    Attributes:
      latent_dim: D.
      beta: weight of the KL term in stage 1.
      rescale: whether each modality's likelihood is weighted by max_k dim(x_k) / dim(x_j) in stage 1.
      scale_transform: `softplus` or `exp`: how encoders make a scale positive.
      network: encoder and decoder of every modality (`networks.mlp`, `networks.conv`, `networks.resnet`).
      networks: exceptions to `network`, by modality.
      joint_hidden: widths of the layers between the concatenated heads and the joint posterior.
      flow: the flow of every expert.
      wide_experts: whether an expert's base Gaussian may be wider than the prior. No true posterior has a heavier tail than the
        prior, p(z|x) / p(z) being p(x|z) / p(x); where experts may, their product over p(z)^(|S|-1) is easily improper. Off, an
        expert's precision is 1 + 1/s^2, s the encoder's scale: the prior's and what x_j adds.
      sampler: the chains behind a product of experts.
    """

    latent_dim: int = 32
    beta: float = 1.0
    rescale: bool = False
    scale_transform: Literal["softplus", "exp"] = "softplus"
    network: configs.Component = conv.Config()
    networks: Mapping[str, configs.Component] = dataclasses.field(default_factory=dict)
    joint_hidden: tuple[int, ...] = (512,)
    flow: configs.Component = maf.Config()
    wide_experts: bool = False
    sampler: hmc.Config = hmc.Config()


@dataclasses.dataclass(frozen=True)
class Prepared:
    """Names of what stage 2 is given for each example."""

    joint: str = "joint_posterior"  # Gaussian [B, D] of q(z | X)
    observed: str = "observed"  # modality -> [B, *shape]


_PREPARED = Prepared()


def build(
    config: Config,
    specs: specs_lib.Specs,
    *,
    networks: Mapping[str, networks_base.Networks] | None = None,
    joint_trunk: nn.Module | None = None,
) -> base.Model:
    """Returns the model.

    Args:
      config: its settings.
      specs: modality -> spec.
      networks: linen modules of your own in place of the configured ones, by modality.
      joint_trunk: a linen module of your own, `[B, F]` concatenated heads -> `[B, H]`, in place of the MLP of `joint_hidden`.

    Raises:
      ValueError: if there are fewer than two modalities, a network is given for an unknown one, or a number makes no sense.
    """
    _check(config, specs, networks or {})
    names = tuple(specs)
    nets = {name: _networks(config, name, spec, networks or {}) for name, spec in specs.items()}
    trunk = joint_trunk or mlp.MLP(hidden=config.joint_hidden)
    head = networks_base.GaussianHead(dim=config.latent_dim, scale_transform=config.scale_transform)
    flow = configs.build(config.flow, config.latent_dim)
    weights = objectives.rescaling(specs, enabled=config.rescale)

    def init(key):
        z = jnp.zeros((1, config.latent_dim))
        params = {"joint": {"encoders": {}}, "decoders": {}, "experts": {"encoders": {}, "heads": {}}}
        heads = []
        for name, spec in specs.items():
            stream = lambda part, name=name: keys.stream(key, f"{part}/{name}")
            x = jnp.zeros((1, *networks_base.encoder_input_shape(spec)))
            params["joint"]["encoders"][name] = nets[name].encoder.init(stream("joint"), x)
            params["decoders"][name] = nets[name].decoder.init(stream("decoder"), z)
            params["experts"]["encoders"][name] = nets[name].encoder.init(stream("expert"), x)
            features = nets[name].encoder.apply(params["experts"]["encoders"][name], x)
            params["experts"]["heads"][name] = head.init(stream("head"), features)
            heads.append(features)
        features = jnp.concatenate(heads, axis=-1)
        params["joint"]["trunk"] = trunk.init(keys.stream(key, "trunk"), features)
        features = trunk.apply(params["joint"]["trunk"], features)
        params["joint"]["head"] = head.init(keys.stream(key, "joint head"), features)
        params["experts"]["flows"] = jax.vmap(flow.init)(jax.random.split(keys.stream(key, "flows"), len(names)))
        return params

    def encode_joint(params, observed) -> types.Gaussian:
        """q(z | X), `[B, D]`."""
        joint = params["joint"]
        heads = [
            nets[name].encoder.apply(joint["encoders"][name], distributions.network_input(specs[name], observed[name]))
            for name in names
        ]
        features = trunk.apply(joint["trunk"], jnp.concatenate(heads, axis=-1))
        return head.apply(joint["head"], features)

    def encode_expert(params, name, x) -> types.Gaussian:
        """The base Gaussian of q_j(z | x_j), `[B, D]`."""
        experts = params["experts"]
        features = nets[name].encoder.apply(experts["encoders"][name], distributions.network_input(specs[name], x))
        gaussian = head.apply(experts["heads"][name], features)
        if config.wide_experts:
            return gaussian
        return gaussian._replace(scale=jax.lax.rsqrt(1 + gaussian.scale**-2))

    def decode_all(params, z) -> types.Batch:
        flat = z.reshape(-1, z.shape[-1])
        raw = {name: nets[name].decoder.apply(params["decoders"][name], flat) for name in names}
        shaped = {name: out.reshape(*z.shape[:-1], *specs[name].parameter_shape) for name, out in raw.items()}
        return {name: distributions.link(specs[name], out) for name, out in shaped.items()}

    def canonical(observed):
        return {name: distributions.canonical(specs[name], x) for name, x in observed.items()}

    def joint_loss(params, key, batch):
        posterior = encode_joint(params, batch)
        z = distributions.gaussian_sample(key, posterior)
        terms = objectives.log_likelihoods(specs, decode_all(params, z), canonical(batch))
        reconstruction = -sum(weights[name] * term for name, term in terms.items())
        kl = distributions.kl_to_standard_normal(posterior)
        metrics = {"kl": kl.mean(), **{f"log_likelihood/{name}": term.mean() for name, term in terms.items()}}
        return (reconstruction + config.beta * kl).mean(), metrics

    def prepare_experts(params, batch):
        return {_PREPARED.joint: encode_joint(params, batch), _PREPARED.observed: batch}

    def expert_loss(params, key, batch):
        z = distributions.gaussian_sample(key, batch[_PREPARED.joint])
        densities = expert_log_densities(params, batch[_PREPARED.observed], z)
        metrics = {f"log_density/{name}": density.mean() for name, density in densities.items()}
        return -sum(densities.values()).mean(), metrics

    def expert_log_densities(params, observed, z) -> types.Batch:
        """Log q_j(z | x_j) of each observed modality, `[B]`, at z `[B, D]`."""
        bases = {name: encode_expert(params, name, x) for name, x in observed.items()}
        return {
            name: jax.vmap(lambda b, z, f=_flow_of(params, name): expert.log_density(flow, f, b, z))(bases[name], z)
            for name in observed
        }

    def _flow_of(params, name):
        return jax.tree.map(lambda leaf: leaf[names.index(name)], params["experts"]["flows"])

    encode = jax.jit(encode_expert, static_argnums=1)

    @jax.jit
    def stack(flows, indices):
        return jax.tree.map(lambda leaf: leaf[indices], flows)

    def jitted(function):
        return jax.jit(function, static_argnames="num_samples")

    @jitted
    def sample_prior(params, key, *, num_samples):
        del params
        return jax.random.normal(key, (num_samples, config.latent_dim))

    @jitted
    def sample_joint(params, key, observed, *, num_samples):
        posterior = encode_joint(params, observed)
        return jax.vmap(lambda k: distributions.gaussian_sample(k, posterior))(jax.random.split(key, num_samples))

    @jitted
    def sample_expert(flow_params, key, gaussian, *, num_samples):
        return expert.sample_many(flow, flow_params, key, gaussian, num_samples=num_samples)

    @jitted
    def sample_product(flow_params, key, gaussians, *, num_samples):
        # Traced once for each number of experts: which ones they are is data.
        return product.sample(flow, flow_params, key, gaussians, num_samples=num_samples, config=config.sampler)

    def experts_of(params, observed):
        """Returns the stacked flows `[|S|, ..]` and base Gaussians `[B, |S|, D]` of the observed modalities."""
        indices = jnp.asarray([names.index(name) for name in observed])
        gaussians = [encode(params, name, x) for name, x in observed.items()]
        return stack(params["experts"]["flows"], indices), jax.tree.map(lambda *g: jnp.stack(g, axis=1), *gaussians)

    def sample_posterior(params, key, observed, *, num_samples):
        observed = _observed(specs, observed)
        if num_samples < 1:
            raise ValueError(f"Expected at least one sample, got {num_samples}.")
        if not observed:
            raise ValueError("Expected at least one observed modality; draws of the prior are `sample_prior`.")
        size = _batch_size(observed)
        if len(observed) == len(names):
            z = sample_joint(params, key, observed, num_samples=num_samples)
            return z, types.exact_info(size, num_samples)
        flow_params, gaussians = experts_of(params, observed)
        if len(observed) == 1:
            first = lambda tree, axis: jax.tree.map(lambda leaf: jnp.squeeze(leaf, axis), tree)
            z = sample_expert(first(flow_params, 0), key, first(gaussians, 1), num_samples=num_samples)
            return z, types.exact_info(size, num_samples)
        return sample_product(flow_params, key, gaussians, num_samples=num_samples)

    @jax.jit
    def posterior_log_density(params, observed, z):
        observed = _observed(specs, observed)
        if len(observed) == len(names):
            return distributions.gaussian_log_prob(encode_joint(params, observed), z)
        flow_params, gaussians = experts_of(params, observed)
        one = lambda gaussian, z: product.log_density(flow, product.Experts(flow_params, gaussian), z)
        batch = jax.vmap(one)
        for _ in range(z.ndim - 2):
            batch = jax.vmap(batch, in_axes=(None, 0))
        return batch(gaussians, z)

    @jax.jit
    def elbo(params, key, observed):
        observed = _observed(specs, observed)
        if len(observed) < len(names):
            raise ValueError(f"Expected all of {list(names)} for the joint ELBO, got {list(observed)}.")
        posterior = encode_joint(params, observed)
        z = distributions.gaussian_sample(key, posterior)
        terms = objectives.log_likelihoods(specs, decode_all(params, z), canonical(observed))
        return sum(terms.values()) - distributions.kl_to_standard_normal(posterior)

    @jax.jit(static_argnames="num_importance")
    def log_likelihood(params, key, observed, *, num_importance):
        observed = _observed(specs, observed)
        data = canonical(observed)
        if len(observed) == len(names):
            posterior = encode_joint(params, observed)
            propose = lambda key: distributions.gaussian_sample(key, posterior)
            density = lambda z: distributions.gaussian_log_prob(posterior, z)
        elif len(observed) == 1:
            ((name, x),) = observed.items()
            gaussian, flow_params = encode_expert(params, name, x), _flow_of(params, name)
            propose = lambda key: expert.sample_many(flow, flow_params, key, gaussian, num_samples=1)[0]
            density = lambda z: jax.vmap(lambda g, z: expert.log_density(flow, flow_params, g, z))(gaussian, z)
        else:
            raise ValueError(f"Expected one modality or all of {list(names)}, got {list(observed)}.")

        def log_weight(key):
            z = propose(key)
            terms = objectives.log_likelihoods(specs, decode_all(params, z), data)
            terms = sum(terms[name] for name in observed)
            return terms + distributions.standard_normal_log_prob(z) - density(z)

        return objectives.importance_log_likelihood(jax.lax.map(log_weight, jax.random.split(key, num_importance)))

    return base.Model(
        specs=specs,
        latent_dim=config.latent_dim,
        init=init,
        stages=(
            base.Stage(name="joint", trainable=("joint", "decoders"), loss=joint_loss),
            base.Stage(name="experts", trainable=("experts",), loss=expert_loss, prepare=prepare_experts),
        ),
        sample_prior=sample_prior,
        sample_posterior=sample_posterior,
        posterior_log_density=posterior_log_density,
        decode=jax.jit(decode_all),
        log_likelihood=log_likelihood,
        elbo=elbo,
    )


def _networks(config: Config, name: str, spec: specs_lib.ModalitySpec, given) -> networks_base.Networks:
    if name in given:
        return given[name]
    return configs.build(config.networks.get(name, config.network), spec)


def _check(config: Config, specs: specs_lib.Specs, given) -> None:
    if len(specs) < 2:
        raise ValueError(f"Expected at least two modalities, got {list(specs)}.")
    for field, keys_given in (("networks of the config", config.networks), ("networks given", given)):
        if unknown := set(keys_given) - set(specs):
            raise ValueError(f"Expected {field} for modalities of {list(specs)}, got {sorted(unknown)}.")
    if config.latent_dim < 1:
        raise ValueError(f"Expected a latent dimension of at least 1, got {config.latent_dim}.")
    if not config.beta > 0:
        raise ValueError(f"Expected a positive beta, got {config.beta}.")


def _observed(specs: specs_lib.Specs, observed: types.Batch) -> types.Batch:
    """Returns the observed modalities in the specs' order.

    Raises:
      ValueError: on an unknown modality, a wrong shape, or batches of different lengths.
    """
    ordered = {name: observed[name] for name in subsets.ordered(tuple(specs), observed)}
    for name, x in ordered.items():
        if jnp.shape(x)[1:] != specs[name].shape or jnp.ndim(x) != len(specs[name].shape) + 1:
            raise ValueError(
                f"Expected modality {name!r} of shape (B, {', '.join(map(str, specs[name].shape))}), got {jnp.shape(x)}."
            )
    _batch_size(ordered)
    return ordered


def _batch_size(observed: types.Batch) -> int:
    sizes = {name: jnp.shape(x)[0] for name, x in observed.items()}
    if len(set(sizes.values())) > 1:
        raise ValueError(f"Expected as many observations of every modality, got {sizes}.")
    return next(iter(sizes.values()), 0)
