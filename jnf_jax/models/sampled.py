"""What models have in common whose posterior given a subset is a product of experts, sampled by Hamiltonian Monte Carlo.

Given all modalities, a joint encoder draws exactly; given one, its expert does. In between stands `posteriors.product`. Likelihoods are
importance-sampled,

    log p(x_S)  >=  E log (1/K) sum_k p(z_k) prod_{j in S} p(x_j | z_k) / q(z_k),

from the joint encoder or the mixture of the experts observed. Params hold {"joint": .., "decoders": .., "projector": .., "experts": ..,
"marginal": .., "divisors": ..}.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from jnf_jax import compiling, distributions, keys, objectives, types
from jnf_jax.models import experts, joint
from jnf_jax.posteriors import flow as expert
from jnf_jax.posteriors import hmc, product


@dataclasses.dataclass(frozen=True)
class Parts:
    """What the functions below are made of; no parameters.

    Attributes:
      joint: q(z | X).
      experts: q_j(z | x_j).
      rule: how experts are multiplied.
      sampler: the chains behind a product.
    """

    joint: joint.Encoder
    experts: experts.Experts
    rule: product.Rule
    sampler: hmc.Config

    @property
    def names(self) -> tuple[str, ...]:
        """The modalities in order."""
        return self.experts.modalities.names

    @functools.cached_property
    def gather(self):
        """(params, what is observed) -> what a product needs beside it, and the base Gaussians `[B, |S|, D]`.

        An encoder is compiled once for each modality, whatever else is observed.
        """
        encode = jax.jit(compiling.in_pieces(functools.partial(encode_expert, self)), static_argnums=1)
        take = jax.jit(functools.partial(shared_of, self))

        def gather(params, observed):
            gaussians = [encode(params, name, x) for name, x in observed.items()]
            shared = take(params, jnp.asarray([self.names.index(name) for name in observed]))
            if self.rule.marginal is not None:
                shared = shared._replace(marginal=self.rule.marginal.trim(shared.marginal))
            return shared, jax.tree.map(lambda *g: jnp.stack(g, axis=1), *gaussians)

        return gather


def encode_joint(parts: Parts, params: types.Params, observed: types.Batch) -> types.Gaussian:
    """Returns q(z | X), `[B, D]`."""
    return parts.joint.encode(params["joint"], observed)


def encode_expert(parts: Parts, params: types.Params, name: str, x: types.Array) -> types.Gaussian:
    """Returns the base Gaussian of q_j(z | x_j), `[B, D]`."""
    return parts.experts.encode_view(params["experts"], name, parts.experts.view(params["projector"], name, x))


def sample_prior(parts: Parts, params: types.Params, key: types.Array, *, num_samples: int) -> types.Array:
    """Returns draws of the marginal, `[S, D]`."""
    return parts.rule.marginal.sample(params["marginal"], key, num_samples=num_samples)


def make_sampler(parts: Parts):
    """Returns `sample_posterior(params, key, observed, *, num_samples)` -> (z `[S, B, D]`, Info).

    What cannot be drawn, for an observation with NaN for instance, shows in Info as `improper`, with R-hat NaN.
    One modality: exact draws of its flow. All of them: exact draws of the joint encoder. In between: the product of experts by HMC;
    behind the S draws of an observation stand `sampler.num_chains` chains of `sampler.num_warmup` iterations and
    max(`thinning` * ceil(S / chains), `min_iterations`) more (4 chains of 30 + 20 iterations for up to 40 draws by default).
    Encoders run once per observation. The product is compiled once for each number of experts, whichever they are; one program serves
    every S for which the chains are as long.

    Raises (the function returned):
      ValueError: if nothing is observed, a modality is unknown or of the wrong shape, or no sample is asked for.
    """

    @functools.partial(jax.jit, static_argnames="num_samples")
    def from_joint(params, key, observed, *, num_samples):
        posterior = compiling.in_pieces(functools.partial(encode_joint, parts))(params, observed)
        z = jax.vmap(lambda k: distributions.gaussian_sample(k, posterior))(jax.random.split(key, num_samples))
        return z, types.exact_info(z)

    @functools.partial(jax.jit, static_argnames="num_samples")
    def from_expert(shared, key, gaussians, *, num_samples):
        flow_params, gaussian = (
            jax.tree.map(lambda leaf: leaf[0], shared.flows),
            jax.tree.map(lambda leaf: leaf[:, 0], gaussians),
        )
        z = expert.sample_many(parts.experts.flow, flow_params, key, gaussian, num_samples=num_samples)
        return z, types.exact_info(z)

    @functools.partial(compiling.jit, static_argnames="num_samples")
    def from_product(shared, key, gaussians, *, num_samples):
        return product.sample(parts.rule, shared, key, gaussians, num_samples=num_samples, config=parts.sampler)

    def sample_posterior(params, key, observed, *, num_samples):
        observed = _some(parts, observed)
        if num_samples < 1:
            raise ValueError(f"Expected at least one sample, got {num_samples}.")
        if len(observed) == len(parts.names):
            return from_joint(params, key, observed, num_samples=num_samples)
        shared, gaussians = parts.gather(params, observed)
        key = keys.typed(key)
        if len(observed) == 1:
            return from_expert(shared, key, gaussians, num_samples=num_samples)
        z, info = from_product(shared, key, gaussians, num_samples=parts.sampler.kept_for(num_samples))
        return z[:num_samples], info

    return sample_posterior


def _some(parts: Parts, observed: types.Batch) -> types.Batch:
    """Returns what is observed in the modalities' order.

    Raises:
      ValueError: if nothing is observed, or a modality is unknown or of the wrong shape.
    """
    if not (found := parts.experts.modalities.ordered(observed)):
        raise ValueError("Expected at least one observed modality; draws of the prior are `sample_prior`.")
    return found


def shared_of(parts: Parts, params: types.Params, indices: types.Array) -> product.Shared:
    """Returns what a product of the modalities of these indices `[|S|]` needs beside the observation."""
    take = functools.partial(jax.tree.map, lambda leaf: leaf[indices])
    return product.Shared(
        flows=take(params["experts"]["flows"]),
        divisors=product.Divisors(**take(params["divisors"])),
        marginal=params["marginal"],
    )


def make_log_density(parts: Parts):
    """Returns `posterior_log_density(params, observed, z)`, compiled once for each number of experts.

    It is log q(z | x_S) `[.., B]` at z `[.., 1 or B, D]`: normalised for one modality and for all, up to a constant in between. There it is
    the density that chains sample, the wall that confines them included.
    """

    @jax.jit
    def of_joint(params, observed, z):
        return distributions.gaussian_log_prob(encode_joint(parts, params, observed), z)

    @jax.jit
    def of_experts(shared, gaussians, z):
        density = product.log_densities(parts.rule, shared, gaussians, z)
        return density if gaussians.loc.shape[1] == 1 else density - product.wall(z, parts.sampler.outside)

    def posterior_log_density(params, observed, z):
        observed = _some(parts, observed)
        if len(observed) == len(parts.names):
            return of_joint(params, observed, z)
        return of_experts(*parts.gather(params, observed), z)

    return posterior_log_density


def make_log_normaliser(parts: Parts):
    """Returns `log_normaliser(params, key, observed, *, config)` -> `[B]`, compiled once for each number of experts."""
    outside = parts.sampler.outside

    @functools.partial(compiling.jit, static_argnames="config")
    def of_product(shared, key, gaussians, *, config):
        return product.log_normaliser(parts.rule, shared, key, gaussians, outside=outside, config=config)

    def log_normaliser(params, key, observed, *, config):
        observed = _some(parts, observed)
        if len(observed) in (1, len(parts.names)):
            return jnp.zeros(len(next(iter(observed.values()))))
        shared, gaussians = parts.gather(params, observed)
        return of_product(shared, keys.typed(key), gaussians, config=config)

    return log_normaliser


def elbo(parts: Parts, params: types.Params, key: types.Array, observed: types.Batch) -> types.Array:
    """Returns a one-draw estimate `[B]` of the joint ELBO, at beta = 1 and without rescaling.

    Raises:
      ValueError: if a modality is missing.
    """
    observed = parts.experts.modalities.ordered(observed)
    if len(observed) < len(parts.names):
        raise ValueError(f"Expected all of {list(parts.names)} for the joint ELBO, got {list(observed)}.")
    loss, _ = joint.negative_elbo(
        parts.experts.modalities, params["decoders"], key, encode_joint(parts, params, observed), observed,
        beta=1.0, weights=dict.fromkeys(observed, 1.0),
    )  # fmt: skip
    return -loss


def make_log_likelihood(parts: Parts):
    """Returns `log_likelihood(params, key, observed, *, num_importance)` -> log p(x_S) `[B]`.

    It samples by importance from the joint posterior (all modalities) or from the mixture of the experts observed, in turn: a product has no
    normalised density to weigh its draws by; the mixture has. The more experts there are, the more draws it wants: their number is rounded up to
    as many of each. What is compiled for one
    modality serves all of its kind.

    Raises (the function returned):
      ValueError: if no importance sample is asked for.
    """
    networks = parts.experts.modalities

    def bound(key, propose, density, decoders, data, *, kinds, num_importance):
        def log_weight(xs):
            z = propose(*xs)
            total = distributions.standard_normal_log_prob(z) - density(z)
            for kind, decoder, x in zip(kinds, decoders, data, strict=True):
                decoded = networks.decode_one({kind: decoder}, kind, z)
                total += distributions.log_likelihood(
                    networks.specs[kind], decoded, distributions.canonical(networks.specs[kind], x)
                )
            return total

        keys_and_numbers = jax.random.split(key, num_importance), jnp.arange(num_importance)
        return objectives.importance_log_likelihood(jax.lax.map(log_weight, keys_and_numbers))

    @functools.partial(jax.jit, static_argnames=("kinds", "num_importance"))
    def of_joint(posterior, key, decoders, data, **static):
        propose = lambda key, number: distributions.gaussian_sample(key, posterior)
        density = functools.partial(distributions.gaussian_log_prob, posterior)
        return bound(key, propose, density, decoders, data, **static)

    @functools.partial(jax.jit, static_argnames=("kinds", "num_importance"))
    def of_experts(flows, gaussians, key, decoders, data, **static):
        return bound(key, *mixture_of_experts(parts, flows, gaussians), decoders, data, **static)

    encode = jax.jit(compiling.in_pieces(functools.partial(encode_joint, parts)))

    def log_likelihood(params, key, observed, *, num_importance):
        if num_importance < 1:
            raise ValueError(f"Expected at least one importance sample, got {num_importance}.")
        observed = _some(parts, observed)
        rest = key, tuple(params["decoders"][name] for name in observed), tuple(observed.values())
        static = {"kinds": tuple(networks.kinds[name] for name in observed), "num_importance": num_importance}
        if len(observed) == len(parts.names):
            return of_joint(encode(params, observed), *rest, **static)
        shared, gaussians = parts.gather(params, observed)
        static["num_importance"] = -(-num_importance // len(observed)) * len(observed)  # as many draws of each expert: no bias
        return of_experts(shared.flows, gaussians, *rest, **static)

    return log_likelihood


def mixture_of_experts(parts: Parts, flows: types.Params, gaussians: types.Gaussian):
    """Returns (key, number) -> draws `[B, D]` of the expert whose turn it is, and the log density `[B]` of the mixture of all of them.

    Args:
      parts: of the model.
      flows: of the experts, stacked `[|S|, ..]`.
      gaussians: their base Gaussians `[B, |S|, D]`.
    """
    num = gaussians.loc.shape[1]
    bases = jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 1, 0), gaussians)

    def propose(key, number):
        one = jax.tree.map(lambda leaf: leaf[number % num], (flows, bases))
        return expert.sample_many(parts.experts.flow, one[0], key, one[1], num_samples=1)[0]

    def density(z):
        each = jax.vmap(lambda flow, base: expert.log_densities(parts.experts.flow, flow, base, z))(flows, bases)
        return jax.nn.logsumexp(each, axis=0) - jnp.log(num)

    return propose, density
