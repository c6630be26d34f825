import numpy as np
import pytest

from jnf_jax.metrics import latents, reconstruction


def crescents(rng, num):
    """Two clusters, each bent: a standard normal is far from them."""
    side = rng.integers(0, 2, num)
    across = rng.normal(size=num)
    z = np.stack([across, 0.5 * across**2 - 0.5], 1) * 0.3
    return (z + np.where(side[:, None], 1.5, -1.5)).astype(np.float32), side


def test_cluster_accuracy_of_known_clusters():
    rng = np.random.default_rng(0)
    codes, side = crescents(rng, 500)
    assert latents.cluster_accuracy(codes, side) == 1.0
    assert latents.cluster_accuracy(codes, 1 - side) == 1.0  # names of clusters do not matter
    flipped = side.copy()
    flipped[:50] = 1 - flipped[:50]
    assert latents.cluster_accuracy(codes, flipped) == pytest.approx(0.9)


def test_each_cluster_stands_for_one_class():
    """Class 0 has a cluster of 30 and shares none; the 25 of class 1 fall into two, one of which has the 10 of class 2."""
    centres = np.repeat([[0.0, 0.0], [9.0, 0.0], [0.0, 9.0]], [30, 15, 20], axis=0)
    codes = centres + 0.01 * np.random.default_rng(0).normal(size=centres.shape)
    labels = np.repeat([0, 1, 1, 2], [30, 15, 10, 10])
    # the third cluster has ten of either: class 1 has the second one, so the third stands for class 2
    assert latents.cluster_accuracy(codes, labels) == pytest.approx((30 + 15 + 10) / 65)
    labels = np.repeat([0, 1, 1, 2], [30, 15, 12, 8])  # most of the third are of class 1, which one cluster alone may stand for
    assert latents.cluster_accuracy(codes, labels) == pytest.approx((30 + 15 + 8) / 65)


def test_mean_squared_error_of_known_arrays():
    a, b = np.zeros((2, 3, 2)), np.ones((2, 3, 2))
    b[1] = 2
    np.testing.assert_allclose(reconstruction.mean_squared_error(a, b), [1, 4])


def test_structural_similarity_by_its_formula():
    """Of flat images the windows' variances vanish, and the formula is (2 ab + c) / (a^2 + b^2 + c), c = (0.01 L)^2."""
    a, b, value_range = 0.2, 0.7, 1.0
    images = [np.full((2, 9, 9, 3), value) for value in (a, b)]
    c = (0.01 * value_range) ** 2
    expected = (2 * a * b + c) / (a**2 + b**2 + c)
    np.testing.assert_allclose(reconstruction.structural_similarity(*images, value_range=value_range), expected)
    noise = np.random.default_rng(0).random((2, 9, 9, 3))
    np.testing.assert_allclose(reconstruction.structural_similarity(noise, noise, value_range=1.0), 1)
    with pytest.raises(ValueError, match="at least 7x7"):
        reconstruction.structural_similarity(noise[:, :5], noise[:, :5], value_range=1.0)
