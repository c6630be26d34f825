import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jnf_jax.posteriors import hmc


def run(target, *, dim=4, num_samples=40, observations=3, starts=None, **options):
    config = hmc.Config(**options)
    chains = config.chains_for(num_samples)
    starts = jnp.zeros((observations, chains, dim)) if starts is None else starts
    sample = jax.jit(functools.partial(hmc.sample, target, num_samples=num_samples, config=config))
    return sample(jax.random.key(0), jnp.arange(observations) * 1.0, starts, jnp.ones((observations, dim)))


def normal(data, z):
    return -0.5 * ((z - data) ** 2).sum()


@pytest.mark.parametrize(("num_samples", "num_chains"), [(1, 4), (10, 4), (3, None)])
def test_shapes(num_samples, num_chains):
    z, last, info = run(normal, num_samples=num_samples, num_chains=num_chains)
    assert z.shape == (num_samples, 3, 4)
    assert last.position.shape == (3, num_chains or num_samples, 4)
    assert {leaf.shape for leaf in info} == {(3,)}


def test_the_first_draws_come_from_different_chains():
    z, last, _ = run(normal, num_samples=6, num_chains=3)
    np.testing.assert_array_equal(z[:3], last.position.swapaxes(0, 1))


@pytest.mark.parametrize(("num_samples", "num_chains"), [(12, 3), (14, 3), (5, 5)])
def test_draws_are_sorted_by_chain_again(num_samples, num_chains):
    z, last, _ = run(normal, num_samples=num_samples, num_chains=num_chains, thinning=1, min_iterations=1)
    chains = hmc.by_chain(z, num_chains)
    length = num_samples // num_chains
    assert chains.shape == (num_chains, length, 3, 4)
    np.testing.assert_array_equal(chains[:, -1], last.position.swapaxes(0, 1))
    for chain in range(num_chains):
        for n in range(length):
            np.testing.assert_array_equal(chains[chain, n], z[(length - 1 - n) * num_chains + chain])


def test_each_observation_has_its_own_target():
    z, _, info = run(normal, num_samples=4_000, thinning=1)
    standard_error = 1 / np.sqrt(np.asarray(info.ess).min() / 2)
    np.testing.assert_allclose(z.mean((0, 2)), [0, 1, 2], atol=5 * standard_error)


def test_the_metric_adapts_to_different_scales():
    scales = jnp.asarray([0.01, 0.1, 1.0, 10.0])
    z, _, info = run(lambda data, z: -0.5 * ((z / scales) ** 2).sum(), num_samples=4_000, thinning=2, num_warmup=400)
    assert info.rhat.max() < 1.02
    effective = float(info.ess.sum())  # of all observations, which have one target
    np.testing.assert_allclose(z.std((0, 1)) / scales, 1, atol=5 / np.sqrt(2 * effective))


def test_chains_stuck_in_separate_modes_show_in_rhat():
    def two_modes(data, z):
        return jax.nn.logsumexp(jnp.stack([normal(12.0, z), normal(-12.0, z) - 3.0]))

    starts = jnp.broadcast_to(jnp.asarray([12.0, 12.0, -12.0, -12.0])[None, :, None], (3, 4, 4))
    _, _, info = run(two_modes, num_samples=400, thinning=1, starts=starts)
    assert info.rhat.min() > 1.1


def test_a_target_without_density_diverges_and_is_no_nan():
    z, _, info = run(lambda data, z: jnp.where(z[0] > 0.5, jnp.nan, normal(data, z)), num_samples=40)
    assert jnp.isfinite(z).all()
    assert info.divergences.sum() > 0


def test_acceptance_follows_the_one_that_the_step_size_is_tuned_to():
    tuned = lambda target: run(normal, dim=20, num_warmup=300, num_samples=400, target_acceptance=target, trajectory=None)[2]
    low, high = (np.asarray(tuned(target).acceptance) for target in (0.6, 0.9))
    assert (high - low > 0.1).all()
    assert (high > 0.8).all()


def test_divergences_of_all_chains_are_counted():
    _, _, info = run(
        lambda data, z: -1e8 * (z**2).sum(), starts=jnp.ones((3, 4, 4)), adapt=False, step_size=10.0, num_samples=40
    )
    np.testing.assert_array_equal(info.divergences, 4 * hmc.Config().iterations_for(40))


def test_nothing_is_tuned_after_warm_up():
    few, many = (run(normal, num_samples=num, thinning=1)[2].step_size for num in (40, 400))
    np.testing.assert_array_equal(few, many)
    assert len(np.unique(few)) > 1


def test_the_reference_setting_is_a_hundred_iterations_of_ten_small_steps():
    assert hmc.REFERENCE.num_warmup + hmc.REFERENCE.iterations_for(1) == 100
    assert (hmc.REFERENCE.max_leapfrog_steps, hmc.REFERENCE.step_size, hmc.REFERENCE.jitter) == (10, 0.01, False)
    z, _, info = run(normal, num_samples=5, **dataclasses.asdict(hmc.REFERENCE))
    assert z.shape == (5, 3, 4)
    assert (info.step_size == 0.01).all()


@pytest.mark.parametrize(("step_size", "num_steps"), [(0.5, 2), (0.4, 3), (0.1, 4), (1.5, 1)])
def test_a_trajectory_takes_the_steps_that_its_length_needs(step_size, num_steps):
    fixed = {"adapt": False, "jitter": False, "step_size": step_size, "num_warmup": 0}
    by_length = run(normal, max_leapfrog_steps=4, trajectory=1.0, **fixed)[0]
    np.testing.assert_array_equal(by_length, run(normal, max_leapfrog_steps=num_steps, trajectory=None, **fixed)[0])
    others = run(normal, max_leapfrog_steps=num_steps + 1, trajectory=None, **fixed)[0]
    assert not np.array_equal(by_length, others)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_chains": 0}, "at least one chain"),
        ({"thinning": 0}, "thinning of at least 1"),
        ({"num_warmup": 3}, "at least 20 warm-up"),
        ({"num_pilots": 1}, "at least 2 pilot"),
        ({"trajectory": 0.0}, "lasts longer than 0"),
        ({"outside": 0.0}, "between 0 and 1, or None, got 0.0"),
        ({"start": "Expert"}, "hmc.start, got 'Expert'"),
    ],
)
def test_nonsense_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        hmc.Config(**options)


def test_the_metric_is_the_variance_of_the_states_counted():
    """Against all of them at once: a sum that forgets a term is told apart."""
    positions = np.random.default_rng(0).normal(3.0, [0.1, 2.0], size=(7, 5, 4, 2))  # [N, B, C, D]
    guess = np.full((5, 2), 0.3)
    tuning = hmc._begin_tuning(jnp.ones(5), jnp.asarray(guess))
    counted = [0.0, 1.0, 1.0, 0.0, 1.0, 1.0, 1.0]
    for state, once in zip(positions, counted, strict=True):
        tuning = hmc._count(tuning, jnp.asarray(state), jnp.asarray(once))
    kept = positions[np.asarray(counted) > 0]
    num = len(kept) * 4
    np.testing.assert_allclose(tuning.mean, kept.mean((0, 2)), rtol=1e-10)
    expected = (num * kept.var((0, 2)) + 10 * guess) / (num + 10)
    np.testing.assert_allclose(hmc._pooled_variance(tuning), expected, rtol=1e-10)


def test_a_long_warm_up_learns_the_metric():
    """Scales a hundred times apart: under the unit metric the wide coordinate would hardly move."""
    scale = jnp.asarray([0.05, 5.0])
    target = lambda data, z: -0.5 * jnp.sum((z / scale) ** 2)
    config = hmc.Config(num_warmup=200, num_chains=4)
    starts = jax.random.normal(jax.random.key(1), (3, 4, 2)) * scale
    draws, _, info = hmc.sample(
        target, jax.random.key(0), jnp.zeros(3), starts, jnp.ones((3, 2)), num_samples=800, config=config
    )
    # 800 draws of an effective 200 or more: a standard deviation is known to 1 / sqrt(400), five of which are allowed
    np.testing.assert_allclose(draws.std((0, 1)), scale, rtol=0.25)
    assert (info.rhat < 1.05).all()


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_chains_keep_the_precision_of_their_target(precision):
    """JAX's default is float64 here; a float32 model is sampled in float32 all the same."""
    starts, variance = jnp.zeros((3, 4, 2), precision), jnp.ones((3, 2), precision)
    target = lambda data, z: -0.5 * ((z - data) ** 2).sum()
    config = hmc.Config(num_warmup=80, num_chains=4)
    draws, last, info = hmc.sample(
        target, jax.random.key(0), jnp.ones((3, 2), precision), starts, variance, num_samples=4, config=config
    )
    assert {draws.dtype, last.position.dtype, info.step_size.dtype} == {jnp.dtype(precision)}


def test_there_is_a_start_for_each_chain():
    with pytest.raises(ValueError, match=r"starts \(B, 4, D\), one for each chain of 40 draws, got \(3, 2, 4\)"):
        run(normal, num_chains=4, starts=jnp.zeros((3, 2, 4)))


def test_chains_run_without_jit():
    config = hmc.Config(num_chains=1, num_warmup=20, min_iterations=2, thinning=1)
    with jax.disable_jit():
        z, _, _ = hmc.sample(
            normal, jax.random.key(0), jnp.zeros(1), jnp.zeros((1, 1, 2)), jnp.ones((1, 2)), num_samples=2, config=config
        )
    assert jnp.isfinite(z).all()
