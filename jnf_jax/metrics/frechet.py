"""Fréchet distances between sets of features (Heusel et al., 2017), and what they would be with infinitely many (Chong & Forsyth, 2020).

    d^2 = |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2))

Its estimate from N features is biased upwards by about c / N; `extrapolated` fits that line through estimates from fewer and reads it off at
1 / N = 0. Which features they are decides what the number means: a distance in a classifier's features is not the FID of
Inception-v3, and neither name should stand for the other.
"""

from typing import NamedTuple

import numpy as np


class Moments(NamedTuple):
    """Mean and covariance of a set of features; sums of them are exact whatever the batches were."""

    mean: np.ndarray  # [F]
    covariance: np.ndarray  # [F, F]


def moments(features: np.ndarray) -> Moments:
    """Returns the moments of features `[N, F]`, the covariance divided by N - 1.

    Raises:
      ValueError: if there are fewer than two.
    """
    features = np.asarray(features, np.float64)
    if features.ndim != 2 or len(features) < 2:
        raise ValueError(f"Expected at least two features of shape (N, F), got {features.shape}.")
    return Moments(features.mean(0), np.atleast_2d(np.cov(features, rowvar=False)))


def squared_distance(first: Moments, second: Moments) -> float:
    """Returns d^2 of two Gaussians, at least 0; NaN where a moment is not finite.

    (C1 C2)^(1/2) has the eigenvalues of (C1^(1/2) C2 C1^(1/2))^(1/2), which is symmetric: nothing here turns complex.
    """
    if not all(np.isfinite(moment).all() for moment in (*first, *second)):
        return np.nan
    values, vectors = np.linalg.eigh(first.covariance)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    cross = np.linalg.eigvalsh(root @ second.covariance @ root)
    trace = np.trace(first.covariance) + np.trace(second.covariance) - 2 * np.sqrt(np.maximum(cross, 0)).sum()
    return float(max(((first.mean - second.mean) ** 2).sum() + trace, 0.0))


def distance(first: np.ndarray, second: np.ndarray) -> float:
    """Returns d^2 between features `[N, F]` and `[M, F]`, as it is estimated from so many."""
    return squared_distance(moments(first), moments(second))


def extrapolated(generated: np.ndarray, real: np.ndarray, *, seed: int = 0, num_points: int = 10) -> float:
    """Returns d^2 with the bias of finitely many generated features taken out; it can fall below 0 by chance. NaN where a feature is not finite.

    Random parts of the generated features, from a quarter of them to all, give a line over 1 / N.

    Args:
      generated: `[N, F]`.
      real: `[M, F]`, taken as given: their own finite number is not corrected for.
      seed: of the parts.
      num_points: number of parts.

    Raises:
      ValueError: if there are fewer than eight generated features.
    """
    if len(generated) < 8:
        raise ValueError(f"Expected at least eight generated features, got {len(generated)}.")
    rng = np.random.default_rng(seed)
    reference = moments(real)
    sizes = np.linspace(len(generated) // 4, len(generated), num_points).astype(int)
    parts = [rng.choice(len(generated), size, replace=False) for size in sizes]
    distances = [squared_distance(moments(generated[rows]), reference) for rows in parts]
    return float(np.polyfit(1.0 / sizes, distances, 1)[1]) if np.isfinite(distances).all() else np.nan


def by_class(generated: np.ndarray, classes: np.ndarray, real: np.ndarray, real_classes: np.ndarray) -> dict[int, float]:
    """Returns class -> d^2 between what was generated for a class and real features of it; classes with fewer than two are left out."""
    return {
        int(label): distance(generated[classes == label], real[real_classes == label])
        for label in np.unique(classes)
        if (classes == label).sum() > 1 and (real_classes == label).sum() > 1
    }
