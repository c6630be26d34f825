"""Products that cannot be normalised: they are told from those that can, and a wall confines their chains."""

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest

from jnf_jax import types
from jnf_jax.posteriors import growth, hmc, product


def gaussian_product(scales, rotation=None, *, config=None, num_samples=400):
    """Experts N(0, Q diag(s_j^2) Q^T), their product's chains."""
    dim = len(scales[0])
    rotation = np.eye(dim) if rotation is None else rotation
    flows = jnp.asarray(np.stack([np.diag(1 / np.asarray(s)) @ rotation.T for s in scales]))
    base = types.Gaussian(jnp.zeros((2, len(scales), dim)), jnp.ones((2, len(scales), dim)))
    exact = oracle.Exact(product.Shared(flows), base, None, None)
    return oracle.sample_product(exact, jax.random.key(0), num_samples=num_samples, config=config or hmc.Config())


@pytest.mark.parametrize("rotation", [None, oracle.ROTATION], ids=["along axes", "rotated"])
@pytest.mark.parametrize(
    "scales",
    [[(0.5, 0.5, 1.5)] * 2, [(0.3, 0.9, 1.3)] * 3, [(0.5, 0.5, 2.0), (0.5, 0.5, 1.2)]],
    ids=["two wide", "three wide", "one very wide"],
)
def test_improper_products_are_flagged(scales, rotation):
    precision = sum(1 / np.square(s) for s in scales) - (len(scales) - 1)
    assert precision.min() < 0
    _, info = gaussian_product(scales, rotation)
    assert info.improper.all()


@pytest.mark.parametrize("rotation", [None, oracle.ROTATION], ids=["along axes", "rotated"])
@pytest.mark.parametrize(
    "scales", [[(0.5, 0.5, 1.5), (0.5, 0.5, 1.2)], [(0.5, 0.5, 3.0), (0.5, 0.5, 0.9)], [(0.9, 0.9, 0.9)] * 3]
)
def test_proper_products_are_not_flagged_also_with_one_wide_expert(scales, rotation):
    precision = sum(1 / np.square(s) for s in scales) - (len(scales) - 1)
    assert precision.min() > 0
    _, info = gaussian_product(scales, rotation)
    assert not info.improper.any()


@pytest.mark.parametrize("config", [hmc.Config(num_chains=1), hmc.REFERENCE])
def test_a_single_chain_tells_improper_products_from_proper_ones(config):
    for scales, improper in (([(0.5, 0.5, 0.9)] * 2, False), ([(0.5, 0.5, 1.5)] * 2, True)):
        _, info = gaussian_product(scales, config=config, num_samples=1)
        assert (np.asarray(info.improper) == improper).all()


@pytest.mark.parametrize(("widest", "improper"), [(-0.02, True), (0.02, False)])
def test_growth_is_seen_in_many_dimensions_off_the_axes(widest, improper):
    dim = 80
    rng = np.random.default_rng(0)
    rotation = np.linalg.qr(rng.normal(size=(dim, dim)))[0]
    precision = jnp.asarray(rotation @ np.diag([widest, *rng.uniform(0.5, 5, dim - 1)]) @ rotation.T)
    ends = jnp.asarray(rng.normal(size=(4, dim)))
    look = jax.jit(lambda ends: growth.grows_outward(lambda z: -0.5 * z @ precision @ z, 0.5 * ends, ends))
    assert bool(look(ends)) == improper


def test_a_narrow_product_far_from_the_origin_is_not_flagged():
    """Half of a latent space is narrow and away from 0, half is almost the prior, as where a VAE does not use all of it."""
    precision = jnp.concatenate([jnp.full(8, 2 / 0.02**2 - 1), jnp.full(8, 2 / 0.999**2 - 1)])
    look = jax.jit(lambda mean, *ends: growth.grows_outward(lambda z: -0.5 * ((z - mean) ** 2) @ precision, *ends))
    for seed in range(20):
        rng = np.random.default_rng(seed)
        mean = jnp.asarray(np.concatenate([rng.normal(size=8), np.zeros(8)]))
        starts, ends = (mean + jnp.asarray(rng.normal(size=(4, 16))) / jnp.sqrt(precision) for _ in range(2))
        assert not look(mean, starts, ends)


def test_the_wall_is_nothing_in_the_ball_of_the_priors_mass_and_keeps_chains_near_it():
    norms = np.linalg.norm(np.random.default_rng(0).normal(size=(100_000, 3)), axis=1)
    radius = np.quantile(norms, 0.99)  # holds all but 1%
    inside, beyond = jnp.asarray([0.97 * radius, 0.0, 0.0]), jnp.asarray([1.2 * radius, 0.0, 0.0])
    assert product.wall(inside, 0.01) == 0 < product.wall(beyond, 0.01)
    assert product.wall(beyond, None) == 0
    np.testing.assert_array_equal(jax.grad(product.wall)(jnp.zeros(3), 0.01), 0)  # finite in the middle too
    z, info = gaussian_product([(0.5, 0.5, 3.0)] * 2)  # improper: nothing but the wall holds its chains
    assert info.improper.all()
    assert jnp.linalg.norm(z, axis=-1).max() < 6  # the ball of all but 0.1% has radius 4.03
