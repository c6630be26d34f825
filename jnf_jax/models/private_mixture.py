"""Mixtures of experts with shared and private codes: the objective of MMVAE+ and, under another prior, of CMVAE.

    p(X, u, w) = p(u) prod_j p(w_j) p(x_j | u, w_j)

In a mixture of experts every modality must be decoded from every other one's code, so in MMVAE the shared code fills with what is private. Here a
component j decodes itself from its own private code and the others from codes of auxiliary priors r_i(w_i), which carry nothing of x_i:

    L = - 1/M sum_j E[ log 1/K sum_k w_jk ],    u ~ q_j(u | x_j),  w_j ~ q_j(w_j | x_j),  w_i ~ r_i for i != j,

    log w = lambda_j log p(x_j | u, w_j) + sum_{i != j} lambda_i log p(x_i | u, w_i) + beta ( log p(u) + log p(w_j) - log q(u | X) - log q_j(w_j | x_j) ),

with q(u | X) = 1/M sum_j q_j(u | x_j). r_i is the prior's family with location 0 and a learnt scale.

It is a bound (lambda = beta = 1): draw j, then the codes as above, with density 1/M q_j(u) q_j(w_j) prod_{i != j} r_i(w_i), and let the reversed model say
from which j a code u came, q_j(u) / sum_i q_i(u). The ELBO of this extended model has the ratio p(X, u, w) / ( q(u | X) q_j(w_j) prod_{i != j} r_i(w_i) ), so that

    log p(X) >= - L - (M - 1)/M sum_i KL( r_i || p )      at K = 1.

With r_i = p, - L itself is a bound; K > 1 tightens it as in MMVAE, and gradients are the same (`iwae`, `dreg`).

Given x_S, u comes from the mixture of the observed q_j, w_j of an observed modality from q_j, and any other from the prior p. `elbo` and
`log_likelihood` of the models use that posterior, in which every observed modality has its own private code, so that `elbo` is not - L. The
paper's released code keeps the parameters in log q when it reweights gradients; ours is the estimator of `objectives.stratified_dreg`.

In an example that lacks modalities, components, likelihoods and the mixture are those of the modalities that are there.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jnf_jax import distributions, keys, objectives, types
from jnf_jax import specs as specs_lib
from jnf_jax.models import base, closed_form, private_codes, unimodal
from jnf_jax.networks import base as networks_base
from jnf_jax.posteriors import mixture as mixtures


@dataclasses.dataclass(frozen=True)
class Parts:
    """What the functions below are made of; no parameters.

    Attributes:
      config: with the fields that `unimodal.build` takes, and `latent_dim`, `private_dim`, `beta`, `num_importance`, `gradient`, `family`, `rescale`.
      encoders: of u and w_j.
      codes: where they are.
      prior: p(u); its parameters are params["prior"].
    """

    config: Any
    encoders: unimodal.Encoders
    codes: private_codes.Layout
    prior: closed_form.Prior

    @property
    def names(self) -> tuple[str, ...]:
        """The modalities in order."""
        return self.codes.names


def build(
    config: Any,
    specs: specs_lib.Specs,
    networks: Mapping[str, networks_base.Networks] | None,
    *,
    prior: closed_form.Prior | None = None,
    init_prior: Callable[[types.Array], types.Params] | None = None,
) -> base.Model:
    """Returns the model.

    Args:
      config: its settings.
      specs: modality -> spec.
      networks: linen modules in place of the configured ones, by modality.
      prior: p(u), of which `params` are its own parameters; None: the standard one.
      init_prior: (key) -> these; None where there are none.
    """
    encoders = unimodal.build(config, specs, networks, dim=config.latent_dim + config.private_dim)
    codes = private_codes.Layout(encoders.modalities, config.latent_dim, config.private_dim, config.family)
    of_u = prior or closed_form.standard_prior(config.latent_dim, family=config.family)
    parts = Parts(config=config, encoders=encoders, codes=codes, prior=of_u)
    learnt = () if init_prior is None else ("prior",)
    stage = base.Stage(
        name="vae",
        trainable=("experts", "auxiliary", "decoders", *learnt),
        loss=functools.partial(loss, parts),
        incomplete=True,
    )
    shared = closed_form.Parts(
        modalities=encoders.modalities,
        latent_dim=codes.latent_dim,
        prior=codes.prior(_of_params(of_u)),
        encode=lambda params, name, x: codes.split(encoders.encode(params["experts"], name, x)),
        combine=functools.partial(combine, parts),
        decode=lambda params, z: codes.decode(params["decoders"], z),
    )
    return closed_form.build(config, shared, functools.partial(init, parts, init_prior), [stage])


def _of_params(prior: closed_form.Prior) -> closed_form.Prior:
    """Returns a prior that finds its own parameters among all of the model's."""
    return closed_form.Prior(
        sample=lambda params, key, num: prior.sample(params.get("prior"), key, num),
        log_prob=lambda params, u: prior.log_prob(params.get("prior"), u),
    )


def init(parts: Parts, init_prior: Callable[[types.Array], types.Params] | None, key: types.Array) -> types.Params:
    """Returns {"experts": .., "auxiliary": modality -> log scale of r_j `[D_p]`, "decoders": .., "prior": .., where there is one}."""
    params = {
        "experts": parts.encoders.init(key),
        "auxiliary": {name: jnp.zeros(parts.config.private_dim) for name in parts.names},
        "decoders": parts.codes.init_decoders(key),
    }
    return params if init_prior is None else {**params, "prior": init_prior(keys.stream(key, "prior"))}


def combine(
    parts: Parts, params: types.Params, encodings: dict[str, types.Gaussian], indices: types.Array
) -> closed_form.Posterior:
    """Returns q(u, w | x_S) of the encodings `[|S|, B, ..]`."""
    del params
    shared = closed_form.mixture_posterior(mixtures.uniform(encodings["shared"]), family=parts.config.family)
    return parts.codes.posterior(shared, encodings["private"], indices)


def loss(parts: Parts, params: types.Params, key: types.Array, batch: types.Batch) -> tuple[types.Array, base.Metrics]:
    """Returns L."""
    config = parts.config
    data, present = parts.encoders.modalities.split(batch)
    experts = parts.codes.split(parts.encoders.encode_all(params["experts"], data))
    draws = draw(parts, params, key, experts)
    weigh = functools.partial(log_weight, parts, parts.encoders.modalities.canonical(data), present)
    theta = {"decoders": params["decoders"], "prior": params.get("prior")}
    coefficients = present / present.sum(0) / present.shape[1]
    if config.gradient == "iwae":
        bound = objectives.stratified_bound(weigh(draws, theta, experts), coefficients)
    else:
        bound = objectives.stratified_dreg(
            weigh,
            draws,
            theta,
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
    theta: types.Params,
    experts: dict[str, types.Gaussian],
) -> types.Array:
    """Returns log w `[K, M, B]`; `data` is canonical."""
    config, networks = parts.config, parts.encoders.modalities
    weights = objectives.rescaling(networks.specs, enabled=config.rescale)
    itself = jnp.eye(len(parts.names), dtype=bool)[:, :, None, None]  # component, modality
    private = {name: jnp.where(itself[:, i], draws["private"], draws["auxiliary"][name]) for i, name in enumerate(parts.names)}
    decoded = parts.codes.decode(theta["decoders"], {"shared": draws["shared"], "private": private})
    terms = objectives.log_likelihoods(networks.specs, decoded, data)
    standard = lambda z: distributions.family_log_prob(config.family, distributions.standard(z.shape[-1:], z.dtype), z)
    log_prior = parts.prior.log_prob(theta["prior"], draws["shared"]) + standard(draws["private"])
    log_q = mixtures.log_prob(mixtures.uniform(experts["shared"], present), draws["shared"], family=config.family)
    log_q += distributions.family_log_prob(config.family, experts["private"], draws["private"])
    return objectives.weighted_sum(terms, weights, present) + config.beta * (log_prior - log_q)
