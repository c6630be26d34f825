"""The models with closed-form posteriors on linear networks, and exact calculations of what they are made of."""

import functools

import jax
import numpy as np
import scipy.special
import scipy.stats
from linear_views import LINEAR, MODALITIES, NAMES, SCALE, data, many

from jnf_jax import configs
from jnf_jax.models import cmvae, crmvae, cvae, dmvae, jmvae, mmvae, mmvae_plus, mopoe, mvae, mvtcae, telbo

CONFIGS = {
    "jmvae": jmvae.Config(**LINEAR, joint_hidden=(), beta=1.5, alpha=0.3, warmup=0.0),
    "mvae": mvae.Config(**LINEAR, beta=1.5, num_subsets=2),
    "mvtcae": mvtcae.Config(**LINEAR, alpha=0.4, beta=1.5),
    "mopoe": mopoe.Config(**LINEAR, beta=1.5, sample_from="mixture"),
    "mmvae": mmvae.Config(**LINEAR, num_importance=3, family="gaussian"),
    "mmvae_plus": mmvae_plus.Config(**LINEAR, private_dim=1, num_importance=3, family="gaussian"),
    "telbo": telbo.Config(**LINEAR, joint_hidden=(), beta=1.5),
    "dmvae": dmvae.Config(**LINEAR, private_dim=1, beta=1.5, private_beta=0.7),
    "cvae": cvae.Config(**LINEAR, joint_hidden=(), beta=1.5, condition_dim=4, condition_hidden=()),
    "crmvae": crmvae.Config(**LINEAR, beta=1.5),
    "cmvae": cmvae.Config(**LINEAR, private_dim=1, num_clusters=3, num_importance=3, family="gaussian"),
}


@functools.cache
def built(name):
    """The model, its parameters in float64, with encoders that see what they should and decoders of some strength."""
    model = configs.build(CONFIGS[name], MODALITIES)
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), jax.jit(model.init)(jax.random.key(1)))
    if "joint" in params or name == "dmvae":  # wide and close to the prior, or importance weights have no variance
        heads = [params["condition"]["head"]] if name == "cvae" else [*params["experts"]["heads"].values()]
        for head in heads + ([params["joint"]["head"]] if "joint" in params else []):
            head["params"]["scale"]["bias"] += 1.5
            head["params"]["loc"]["kernel"] *= 0.2
    if "prior" in params:
        params["prior"]["logits"] = np.asarray([0.0, 1.0, -1.0])
    return model, params


def decoder(params, name):
    dense = params["decoders"][name]["params"]["Dense_0"]
    return np.asarray(dense["kernel"]).T, np.asarray(dense["bias"])


def exact_log_likelihood(name, subset):
    """log p(x_S) of linear decoders: x = W z + b + noise is Gaussian."""
    _, params = built(name)
    shared, blocks = CONFIGS[name].latent_dim, []
    for i, modality in enumerate(subset):
        weight, _ = decoder(params, modality)
        private = weight.shape[1] - shared  # a code of its own (MMVAE+), no other modality sees it
        row = np.zeros((len(weight), shared + len(subset) * private))
        row[:, :shared] = weight[:, :shared]
        row[:, shared + i * private : shared + (i + 1) * private] = weight[:, shared:]
        blocks.append(row)
    weight, mean = np.concatenate(blocks), np.concatenate([decoder(params, n)[1] for n in subset])
    x = np.concatenate([np.asarray(data()[n]) for n in subset], axis=1)
    covariance = weight @ weight.T + SCALE**2 * np.eye(len(weight))
    if "prior" not in params:
        return scipy.stats.multivariate_normal(mean, covariance).logpdf(x)
    each = [
        scipy.stats.multivariate_normal(mean + weight[:, :shared] @ loc, covariance).logpdf(x) for loc in params["prior"]["loc"]
    ]
    return scipy.special.logsumexp(np.stack(each, 1) + log_weights(params["prior"]["logits"]), axis=1)


def log_weights(logits):
    return logits - scipy.special.logsumexp(logits)


def encoded(name, modality):
    """q_j's location and scale `[N, D]`, in numpy, of linear encoders."""
    _, params = built(name)
    head = params["experts"]["heads"][modality]["params"]
    x = np.asarray(data()[modality])
    raw = x @ head["scale"]["kernel"] + head["scale"]["bias"]
    return x @ head["loc"]["kernel"] + head["loc"]["bias"], np.logaddexp(0, raw + np.log(np.e - 1)) + 1e-4


def product(gaussians, power):
    precision = power + sum(s**-2 for _, s in gaussians)
    return sum(m / s**2 for m, s in gaussians) / precision, precision**-0.5


def kl(first, second=(0.0, 1.0)):
    (m, s), (n, t) = first, second
    return (0.5 * ((s / t) ** 2 + ((m - n) / t) ** 2 - 1) - np.log(s / t)).sum(-1)


def expected_log_likelihood(name, modality, posterior):
    """E log p(x_j | z) `[N]` over a Gaussian."""
    (weight, bias), (mean, scale) = decoder(built(name)[1], modality), posterior
    error = np.asarray(data()[modality]) - mean @ weight.T - bias
    trace = (scale**2 @ (weight**2).T).sum(-1)
    constant = -error.shape[-1] * np.log(SCALE * np.sqrt(2 * np.pi))
    return constant - 0.5 * ((error**2).sum(-1) + trace) / SCALE**2


def exact_elbo(name, subset, power, beta, targets=None):
    posterior = product([encoded(name, n) for n in subset], power)
    return sum(expected_log_likelihood(name, n, posterior) for n in targets or subset) - beta * kl(posterior)


def gaussian_of(head, x):
    """Location and scale `[N, D]` of a linear head, in numpy."""
    loc, raw = (x @ head["params"][part]["kernel"] + head["params"][part]["bias"] for part in ("loc", "scale"))
    return loc, np.logaddexp(0, raw + np.log(np.e - 1)) + 1e-4


def joint_posterior(name):
    x = np.concatenate([np.asarray(data()[n]) for n in NAMES], axis=1)
    return gaussian_of(built(name)[1]["joint"]["head"], x)


def losses(name, batch, stage=0):
    """So many draws of a stage's loss that another weight of its KL term shows."""
    model, params = built(name)
    return many(lambda key: model.stages[stage].loss(params, key, batch)[0], 100_000)
