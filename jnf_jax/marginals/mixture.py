"""A mixture of Gaussians, fitted by expectation maximisation (scikit-learn's).

    m(z) = sum_k w_k N(z; c_k, C_k),     C_k^-1 = W_k W_k^T, W_k upper triangular

Of several numbers of components the one with the largest likelihood of held-out codes is kept.
"""

import dataclasses
import functools
import math
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from jnf_jax import configs, types
from jnf_jax.marginals import base

_MOST_FULL = 64  # dimensions
_ABSENT = -1e9  # log weight of a component that is not used
# in full precision on accelerators too: squared distances are much smaller than the terms that they sum
_matmul = functools.partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(configs.Component):
    """A mixture of Gaussians.

    Attributes:
      num_components: the numbers of components that are tried.
      covariance: of a component: `full`, `diagonal`, or `auto`: full up to 64 dimensions, where it costs a chain little.
      ridge: added to the variances, in squared prior standard deviations.
      max_iterations: of expectation maximisation.
    """

    num_components: tuple[int, ...] = (10, 20, 40)
    covariance: Literal["auto", "full", "diagonal"] = "auto"
    ridge: float = 1e-3
    max_iterations: int = 100

    def __post_init__(self):
        super().__post_init__()
        if not self.num_components or min(self.num_components) < 1:
            raise ValueError(f"Expected numbers of components of at least 1, got {self.num_components}.")
        if not self.ridge > 0 or self.max_iterations < 1:
            raise ValueError(
                f"Expected a positive ridge and at least one iteration, got {self.ridge} and {self.max_iterations}."
            )


def build(config: Config, dim: int) -> base.Marginal:
    """Returns the mixture on R^dim."""
    most = max(config.num_components)
    full = _is_full(config, dim)

    def init(key):
        del key  # unfitted it is the prior N(0, I), as often as it has components
        whitening = np.broadcast_to(np.eye(dim), (most, dim, dim)) if full else np.ones((most, dim))
        start = {"log_weights": np.full(most, -math.log(most)), "loc": np.zeros((most, dim)), "whitening": whitening}
        return {name: jnp.asarray(leaf, float) for name, leaf in start.items()}

    def sample(params, key, *, num_samples):
        component_key, noise_key = jax.random.split(key)
        chosen = jax.random.categorical(component_key, params["log_weights"], shape=(num_samples,))
        noise = jax.random.normal(noise_key, (num_samples, dim))
        if not full:
            return params["loc"][chosen] + noise / params["whitening"][chosen]
        roots = jnp.linalg.inv(jnp.triu(params["whitening"]))  # C_k = root^T root
        return params["loc"][chosen] + jnp.einsum("sd,sde->se", noise, roots[chosen])

    fit_codes = lambda *codes: fit(config, *codes)
    return base.Marginal(init=init, log_density=log_density, sample=sample, fit=fit_codes, trim=trim, least_codes=most)


def log_density(params: types.Params, z: types.Array) -> types.Array:
    """Returns the log density `[]` of one point `[D]`."""
    loc, whitening = params["loc"], params["whitening"]
    if whitening.ndim == 3:
        upper = jnp.triu(whitening)
        white = jnp.einsum("d,kde->ke", z, upper) - jnp.einsum("kd,kde->ke", loc, upper)
        scales, squares = jnp.diagonal(upper, axis1=1, axis2=2), (white**2).sum(-1)
    else:
        scales, squares = whitening, _squares(z, loc, whitening)
    log_weights = jax.nn.log_softmax(params["log_weights"])
    each = log_weights + jnp.log(jnp.abs(scales)).sum(-1) - 0.5 * squares
    return jax.nn.logsumexp(each) - 0.5 * loc.shape[-1] * math.log(2 * math.pi)


@jax.custom_jvp
def _squares(z: types.Array, loc: types.Array, whitening: types.Array) -> types.Array:
    """Returns the squared distances `[K]` of z `[D]` from components of these locations and inverse scales `[K, D]`, in their scales.

    They and their gradient with respect to z are made of matrix products, where the plain formula sums over components and dimensions one by
    one. They are right to a rounding of sum_d (z_d^2 + c_d^2) / C_d.
    """
    precision = whitening**2
    return _matmul(precision, z * z) - 2 * _matmul(precision * loc, z) + (precision * loc**2).sum(-1)


@functools.partial(_squares.defjvp, symbolic_zeros=True)
def _squares_jvp(primals, tangents):
    z, loc, whitening = primals
    dz, dloc, dwhitening = tangents
    absent = lambda tangent: isinstance(tangent, jax.custom_derivatives.SymbolicZero)
    change = jnp.zeros(len(loc), z.dtype)
    if not absent(dz):
        precision = whitening**2
        change += 2 * (_matmul(precision, z * dz) - _matmul(precision * loc, dz))
    if not absent(dloc):
        change -= 2 * (whitening**2 * (z - loc) * dloc).sum(-1)
    if not absent(dwhitening):
        change += 2 * ((z - loc) ** 2 * whitening * dwhitening).sum(-1)
    return _squares(z, loc, whitening), change


def trim(params: types.Params) -> types.Params:
    """Returns the components that have a weight: `fit` fills those that it does not use up to the largest number tried."""
    if isinstance(params["log_weights"], jax.core.Tracer):
        return params
    used = np.asarray(params["log_weights"]) > _ABSENT / 2
    return params if used.all() else jax.device_put(jax.tree.map(lambda leaf: np.asarray(leaf)[used], params))


def fit(config: Config, seed: int, codes: np.ndarray, held_out: np.ndarray) -> types.Params:
    """Returns the parameters of the best of the mixtures; unused components have no weight.

    Args:
      config: settings.
      seed: of the starts.
      codes: `[N, D]`.
      held_out: `[N', D]`, which choose the number of components.

    Raises:
      ValueError: if there are fewer codes than components.
    """
    import sklearn.mixture  # here, since it takes a second to import and only this needs it

    if len(codes) < max(config.num_components):
        raise ValueError(f"Expected at least {max(config.num_components)} codes for as many components, got {len(codes)}.")
    dim = codes.shape[1]
    kind = "full" if _is_full(config, dim) else "diag"
    found = [
        sklearn.mixture.GaussianMixture(
            num, covariance_type=kind, reg_covar=config.ridge, max_iter=config.max_iterations, random_state=seed
        ).fit(codes.astype(np.float64))
        for num in config.num_components
    ]
    best = max(found, key=lambda mixture: mixture.score(held_out.astype(np.float64)))
    absent = max(config.num_components) - best.n_components
    fill = lambda values, value: np.concatenate([values, np.repeat(value[None], absent, axis=0)]).astype(codes.dtype)
    return {
        "log_weights": fill(np.log(np.maximum(best.weights_, 1e-300)), np.asarray(_ABSENT)),
        "loc": fill(best.means_, np.zeros(dim)),
        "whitening": fill(best.precisions_cholesky_, np.eye(dim) if kind == "full" else np.ones(dim)),
    }


def _is_full(config: Config, dim: int) -> bool:
    return config.covariance == "full" or (config.covariance == "auto" and dim <= _MOST_FULL)
