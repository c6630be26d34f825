import numpy as np
import pytest

from jnf_jax.flows import maf
from jnf_jax.metrics import latents, reconstruction
from jnf_jax.training import fit


def crescents(rng, num):
    """Two clusters, each bent: a standard normal is far from them."""
    side = rng.integers(0, 2, num)
    across = rng.normal(size=num)
    z = np.stack([across, 0.5 * across**2 - 0.5], 1) * 0.3
    return (z + np.where(side[:, None], 1.5, -1.5)).astype(np.float32), side


@pytest.mark.parametrize("density", ["mixture", "flow"])
def test_fitted_densities_have_the_codes_moments(density):
    rng = np.random.default_rng(0)
    codes, held_out = crescents(rng, 4_000)[0], crescents(rng, 500)[0]
    if density == "mixture":
        draws = latents.mixture_draws(codes, 4_000)
    else:
        training = fit.Config(num_steps=600, batch_size=256, learning_rate=5e-3)
        flow = maf.Config(hidden=(32, 32), widening=True)
        draws = latents.flow_draws(codes, held_out, 4_000, flow=flow, training=training)
    assert draws.shape == (4_000, 2)
    error = codes.std(0) * np.sqrt(2 / 4_000)
    slack = 5 * error if density == "mixture" else 0.2 * codes.std(0)  # a flow's fit is not exact
    assert (abs(draws.mean(0) - codes.mean(0)) < slack).all()
    np.testing.assert_allclose(draws.std(0), codes.std(0), rtol=0.15)
    between = (abs(draws[:, 0]) < 0.2).mean()
    assert between < 0.08  # a Gaussian of these moments puts .10 there, the codes have less than .01


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_a_mixture_of_float32_codes_draws_without_complaint():
    codes = np.random.default_rng(0).normal(size=(3_000, 24)) @ np.diag(np.linspace(0.1, 3, 24))
    assert np.isfinite(latents.mixture_draws(codes.astype(np.float32), 100)).all()


def test_cluster_accuracy_of_known_clusters():
    rng = np.random.default_rng(0)
    codes, side = crescents(rng, 500)
    assert latents.cluster_accuracy(codes, side) == 1.0
    assert latents.cluster_accuracy(codes, 1 - side) == 1.0  # names of clusters do not matter
    flipped = side.copy()
    flipped[:50] = 1 - flipped[:50]
    assert latents.cluster_accuracy(codes, flipped) == pytest.approx(0.9)


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
