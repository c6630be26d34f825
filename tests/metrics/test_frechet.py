import numpy as np
import pytest
import scipy.linalg

from jnf_jax.metrics import frechet


def gaussian(rng, dim):
    root = rng.normal(size=(dim, dim))
    return frechet.Moments(rng.normal(size=dim), root @ root.T + 0.1 * np.eye(dim))


def test_distance_of_two_gaussians_by_the_matrix_root():
    rng = np.random.default_rng(0)
    for dim in (1, 3, 20):
        a, b = gaussian(rng, dim), gaussian(rng, dim)
        root = scipy.linalg.sqrtm(a.covariance @ b.covariance).real
        exact = ((a.mean - b.mean) ** 2).sum() + np.trace(a.covariance + b.covariance - 2 * root)
        assert frechet.squared_distance(a, b) == pytest.approx(exact, rel=1e-8)
        assert frechet.squared_distance(a, a) == pytest.approx(0, abs=1e-8 * dim**2)


def test_distance_of_commuting_gaussians_in_closed_form():
    a = frechet.Moments(np.zeros(3), np.diag([1.0, 4.0, 9.0]))
    b = frechet.Moments(np.array([1.0, 0.0, 2.0]), np.diag([4.0, 4.0, 0.0]))
    assert frechet.squared_distance(a, b) == pytest.approx(5 + (1 - 2) ** 2 + 0 + 3**2)


def test_moments_are_those_of_numpy():
    x = np.random.default_rng(0).normal(size=(50, 4))
    mean, covariance = frechet.moments(x)
    np.testing.assert_allclose(mean, x.mean(0))
    np.testing.assert_allclose(covariance, np.cov(x.T))
    with pytest.raises(ValueError, match="at least two features"):
        frechet.moments(x[:1])


def test_what_is_not_finite_has_no_distance():
    x = np.random.default_rng(0).normal(size=(50, 4))
    broken = x.copy()
    broken[7, 1] = np.nan
    assert np.isnan(frechet.distance(broken, x))
    assert np.isnan(frechet.distance(x, broken))
    assert np.isnan(frechet.extrapolated(broken, x))
    assert np.isfinite(frechet.extrapolated(x, x))


def test_extrapolation_takes_the_bias_of_few_samples_away():
    rng = np.random.default_rng(0)
    dim, repeats = 10, 20
    real = rng.normal(size=(50_000, dim))
    raw, corrected = (
        np.array(v)
        for v in zip(
            *(
                (frechet.distance(x, real), frechet.extrapolated(x, real, seed=i))
                for i, x in enumerate(rng.normal(size=(repeats, 400, dim)))
            ),
            strict=True,
        )
    )
    raw_error, error = (v.std(ddof=1) / np.sqrt(repeats) for v in (raw, corrected))
    assert raw.mean() > 10 * raw_error  # the law is the same: all of it is bias
    assert abs(corrected.mean()) < 5 * error
    with pytest.raises(ValueError, match="at least eight"):
        frechet.extrapolated(real[:7], real)


def test_classes_are_compared_with_their_own():
    rng = np.random.default_rng(0)
    classes = np.arange(600) % 3
    x = rng.normal(size=(600, 2)) + 5.0 * classes[:, None]
    found = frechet.by_class(x, classes, x, classes)
    assert set(found) == {0, 1, 2}
    np.testing.assert_allclose(list(found.values()), 0, atol=1e-10)
    moved = frechet.by_class(x + np.array([3.0, 4.0]), classes, x, classes)
    np.testing.assert_allclose(list(moved.values()), 25)
    assert set(frechet.by_class(x[:1], classes[:1], x, classes)) == set()
