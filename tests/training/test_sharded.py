import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jnf_jax import specs, types
from jnf_jax.data import stream
from jnf_jax.models import base
from jnf_jax.training import sharded, sharding

SPECS = {"a": specs.ModalitySpec(shape=(3,)), "b": specs.ModalitySpec(shape=(2,))}
SHAPES = []


def mean(params, observed):
    return params["w"] * sum(x.sum(-1) for x in observed.values())


def model():
    """Posteriors N(w (sum of x), 1) in one dimension; it counts the shapes that it is compiled for."""

    @functools.partial(jax.jit, static_argnames="num_samples")
    def sample_posterior(params, key, observed, *, num_samples):
        loc = mean(params, observed)
        SHAPES.append(loc.shape)
        z = (loc + jax.random.normal(key, (num_samples, *loc.shape)))[..., None]
        return z, types.exact_info(z)

    def density(params, observed, z):
        return -0.5 * (z[..., 0] - mean(params, observed)) ** 2

    @functools.partial(jax.jit, static_argnames="num_importance")
    def log_likelihood(params, key, observed, *, num_importance):
        return mean(params, observed) + num_importance

    return base.Model(
        specs=SPECS, latent_dim=1, init=None, stages=(), sample_prior=None, sample_posterior=sample_posterior,
        posterior_log_density=density, decode=None, log_likelihood=log_likelihood,
        elbo=jax.jit(lambda params, key, observed: mean(params, observed)),
    )  # fmt: skip


PARAMS = {"w": jnp.asarray(2.0)}
KEY = jax.random.key(0)


def observations(num):
    rng = np.random.default_rng(0)
    return {name: rng.normal(size=(num, *spec.shape)) for name, spec in SPECS.items()}


@pytest.mark.parametrize("num", [1, 4, 6, 8, 17])
@pytest.mark.parametrize("devices", [1, 4])
def test_values_are_exact_however_many_observations_there_are(num, devices):
    whole, observed = model(), observations(num)
    cut = sharded.over(whole, sharding.make_mesh(devices), chunk=8)
    np.testing.assert_allclose(cut.elbo(PARAMS, KEY, observed), whole.elbo(PARAMS, KEY, observed))
    options = {"num_importance": 3}
    np.testing.assert_allclose(
        cut.log_likelihood(PARAMS, KEY, observed, **options), whole.log_likelihood(PARAMS, KEY, observed, **options)
    )
    rng = np.random.default_rng(1)
    for shape in [(num, 1), (5, num, 1), (2, 5, num, 1), (5, 1, 1), (1, 1)]:
        z = rng.normal(size=shape)
        found = cut.posterior_log_density(PARAMS, observed, z)
        assert found.shape == (*shape[:-2], num)
        np.testing.assert_allclose(found, whole.posterior_log_density(PARAMS, observed, z))


def test_draws_of_every_observation_are_its_own():
    observed = observations(18)
    SHAPES.clear()
    z, info = sharded.over(model(), sharding.make_mesh(4), chunk=7).sample_posterior(PARAMS, KEY, observed, num_samples=4_000)
    assert SHAPES == [(8,)], "one compilation, of chunks that the devices divide"
    assert z.shape == (4_000, 18, 1)
    assert {leaf.shape for leaf in info} == {(18,)}
    error = (z[..., 0].mean(0) - np.asarray(mean(PARAMS, observed))) * np.sqrt(4_000)
    assert np.abs(error).max() < 5
    draws = z[..., 0] - np.asarray(mean(PARAMS, observed))
    correlation = np.corrcoef(draws.T) - np.eye(18)
    assert np.abs(correlation).max() < 5 / np.sqrt(4_000), "chunks share their randomness"


def test_draws_do_not_depend_on_the_number_of_devices():
    draw = lambda devices: sharded.over(model(), sharding.make_mesh(devices), chunk=8).sample_posterior(
        PARAMS, KEY, observations(16), num_samples=5
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), draw(1), draw(4))


def test_one_chunk_is_split_over_the_devices():
    seen = []

    def double(key, rows):
        seen.append({shard.data.shape for shard in rows.addressable_shards})
        return 2 * rows

    found = sharded.in_chunks(double, None, np.arange(8.0), sharding.make_mesh(4), size=100, axes=0)
    np.testing.assert_array_equal(found, 2 * np.arange(8.0))
    assert seen == [{(2,)}]
    assert len(found.devices()) == 1  # beside what a later function takes


def test_a_chunk_is_smaller_where_more_is_drawn():
    found = []
    for num_samples in (1, 2_000):
        SHAPES.clear()
        few = sharded.over(model(), sharding.make_mesh(4), mebibytes=4)
        few.sample_posterior(PARAMS, KEY, observations(3_000), num_samples=num_samples)
        found += [shape[0] for shape in SHAPES]
    assert found == [2732, 8]


def test_observations_may_stay_in_a_file(tmp_path):
    observed = observations(20)
    for name, x in observed.items():
        np.save(tmp_path / f"{name}.npy", x)
    files = {name: stream.Rows(tmp_path / f"{name}.npy") for name in observed}
    cut = sharded.over(model(), chunk=8)
    np.testing.assert_allclose(cut.elbo(PARAMS, KEY, files), model().elbo(PARAMS, KEY, observed))


def test_inside_jit_it_is_the_model():
    observed = observations(6)
    cut = sharded.over(model(), chunk=4)
    z = np.zeros((6, 1))
    found = jax.jit(lambda z: cut.posterior_log_density(PARAMS, observed, z))(z)
    np.testing.assert_allclose(found, model().posterior_log_density(PARAMS, observed, z))


def test_what_the_model_refuses_is_refused_by_it():
    observed = observations(6)
    with pytest.raises(TypeError, match="incompatible shapes"):
        sharded.over(model()).elbo(PARAMS, KEY, {**observed, "b": observed["b"][:4]})
    with pytest.raises(ValueError, match=r"at least one observation a chunk, got 1024\.0 and 0"):
        sharded.over(model(), chunk=0)
