"""The Gaussians N(c_j, C_j) that experts are divided by (`posteriors.product`)."""

import jax
import numpy as np

from jnf_jax.posteriors import product


def identity(num: int, dim: int) -> product.Divisors:
    """Returns N(0, I) for each of `num` experts: what stands there until it is fitted."""
    whitening = np.tile(np.eye(dim), (num, 1, 1))
    return jax.device_put(product.Divisors(loc=np.zeros((num, dim)), whitening=whitening, widest=np.ones((num, dim))))


def by_moments(u: np.ndarray, widest: np.ndarray) -> product.Divisors:
    """Returns the Gaussian of the moments of `u` `[N, D]`, made no narrower than `widest` `[D]` in any direction.

    With A = diag(1/widest) Cov(u) diag(1/widest), eigenvalues of A below 1 are set to 1. Then C_j - diag(sigma^2) is positive semi-definite for
    every sigma <= widest. N(u; mu, sigma^2) / N(u; c_j, C_j) is bounded for sigma < widest, and grows exponentially at most for sigma = widest.
    """
    scale = np.asarray(widest, np.float64)
    scaled = np.asarray(u, np.float64) / scale
    values, vectors = np.linalg.eigh(np.atleast_2d(np.cov(scaled, rowvar=False)))
    precision = vectors / np.maximum(values, 1.0) @ vectors.T
    whitening = np.linalg.cholesky(precision / np.outer(scale, scale))  # C^-1 = W W^T
    return product.Divisors(*(np.asarray(leaf, u.dtype) for leaf in (scaled.mean(0) * scale, whitening, scale)))
