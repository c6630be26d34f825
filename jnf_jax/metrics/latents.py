"""Densities fitted to the codes of the training data, in the prior's place, and what clusters the codes form.

The aggregate posterior, the average of q(z|X) over the data, is not the standard normal that it is compared with; draws of a density fitted to
its codes decode to more coherent examples. Such densities stand outside the model: they give z, and `model.decode` does the rest.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize
import sklearn.cluster
import sklearn.mixture

from jnf_jax import configs, distributions, keys, types
from jnf_jax.flows import base as flows
from jnf_jax.models import base
from jnf_jax.training import fit, sharding

_ENTRY = "density"


def mixture_draws(codes: np.ndarray, num_samples: int, *, num_components: int = 10, seed: int = 0) -> np.ndarray:
    """Returns draws `[S, D]` of a Gaussian mixture with full covariances, fitted to codes `[N, D]`."""
    mixture = sklearn.mixture.GaussianMixture(num_components, covariance_type="full", reg_covar=1e-4, random_state=seed)
    mixture.fit(codes)
    covariances = mixture.covariances_.astype(
        np.float64
    )  # in float32 they are not symmetric enough for scikit-learn's own draws
    mixture.covariances_ = (covariances + covariances.swapaxes(-1, -2)) / 2
    return mixture.sample(num_samples)[0].astype(np.float32)


def flow_draws(
    codes: np.ndarray, held_out: np.ndarray, num_samples: int, *, flow: configs.Component, training: fit.Config, seed: int = 0
) -> np.ndarray:
    """Returns draws `[S, D]` of a flow over a standard normal, fitted to codes by maximum likelihood.

    Args:
      codes: `[N, D]` of the training data.
      held_out: `[M, D]` of the validation data, which choose the best weights.
      num_samples: S.
      flow: config of the flow.
      training: how it is fitted.
      seed: of everything random.
    """
    dim = codes.shape[1]
    bijection = configs.build(flow, dim)
    key = jax.random.key(seed)
    stage = base.Stage(name=_ENTRY, trainable=(_ENTRY,), loss=functools.partial(_loss, bijection))
    params = {_ENTRY: bijection.init(keys.stream(key, "init"))}
    mesh = sharding.make_mesh(1)  # any batch divides by it, and so few parameters gain nothing from more devices
    params, _ = fit.fit(stage, params, keys.stream(key, "training"), {"z": codes}, {"z": held_out}, config=training, mesh=mesh)
    u = jax.random.normal(keys.stream(key, "draws"), (num_samples, dim))
    return np.asarray(jax.jit(jax.vmap(lambda u: bijection.inverse(params[_ENTRY], u)[0]))(u))


def _loss(
    bijection: flows.Flow, params: types.Params, key: types.Array, batch: types.Batch
) -> tuple[types.Array, base.Metrics]:
    del key

    def log_density(z):
        u, log_det = bijection.forward(params[_ENTRY], z)
        return distributions.standard_normal_log_prob(u) + log_det

    return -jnp.mean(jax.vmap(log_density)(batch["z"])), {}


def cluster_accuracy(codes: np.ndarray, labels: np.ndarray, *, seed: int = 0) -> float:
    """Returns the share of codes `[N, D]` whose k-means cluster stands for their class, clusters matched to classes one to one."""
    classes = np.unique(labels)
    clusters = sklearn.cluster.KMeans(len(classes), n_init=10, random_state=seed).fit_predict(codes)
    counts = np.asarray([[np.sum((clusters == k) & (labels == c)) for c in classes] for k in range(len(classes))])
    rows, columns = scipy.optimize.linear_sum_assignment(-counts)
    return float(counts[rows, columns].sum() / len(labels))
