import functools
import os
import pathlib
import subprocess
import sys

import arviz
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jnf_jax import types
from jnf_jax.metrics import arviz as bridge
from jnf_jax.posteriors import hmc

CHAINS, DRAWS, OBSERVATIONS, DIM = 4, 150, 3, 2


def normal(data, z):
    return -0.5 * ((z - data) ** 2).sum()


@pytest.fixture(scope="module")
def sampled():
    """Every iteration is a draw."""
    config = hmc.Config(num_chains=CHAINS, thinning=1, num_warmup=100)
    data = jnp.arange(OBSERVATIONS) * 1.0
    sample = jax.jit(functools.partial(hmc.sample, normal, num_samples=CHAINS * DRAWS, config=config))
    starts = jnp.broadcast_to(jnp.linspace(-1.0, 1.0, CHAINS)[:, None], (OBSERVATIONS, CHAINS, DIM))
    z, last, info = sample(jax.random.key(0), data, starts, jnp.ones((OBSERVATIONS, DIM)))
    log_density = jax.vmap(jax.vmap(normal), (None, 0))(data, z)
    return z, last, info, log_density


def test_r_hat_and_ess_are_those_of_info(sampled):
    z, _, info, log_density = sampled
    data = bridge.to_inference_data(z, info, num_chains=CHAINS, log_density=log_density)
    stats = data["sample_stats"]
    stats = stats.to_dataset() if hasattr(stats, "to_dataset") else stats  # a node of a tree in ArviZ 1.x
    np.testing.assert_allclose(arviz.rhat(stats)["lp"], info.rhat, rtol=1e-8)
    np.testing.assert_allclose(arviz.ess(stats, method="bulk")["lp"], info.ess, rtol=1e-8)
    mixed = arviz.rhat(data["posterior"].to_dataset() if hasattr(data["posterior"], "to_dataset") else data["posterior"])
    assert float(mixed["z"].max()) < 1.05


def test_a_trend_has_another_r_hat(sampled):
    """What the test above would not see if it could not fail."""
    z, _, info, log_density = sampled
    trend = log_density + np.linspace(0, 3, len(z))[:, None]
    for num_chains in (CHAINS, 2):
        data = bridge.to_inference_data(z, info, num_chains=num_chains, log_density=trend)
        stats = data["sample_stats"]
        stats = stats.to_dataset() if hasattr(stats, "to_dataset") else stats
        assert np.abs(np.asarray(arviz.rhat(stats)["lp"]) - np.asarray(info.rhat)).min() > 0.01


def test_chains_keep_their_order_and_names(sampled):
    z, last, info, _ = sampled
    data = bridge.to_inference_data(z, info, num_chains=CHAINS)
    kept = data["posterior"]["z"]
    assert dict(kept.sizes) == {"chain": CHAINS, "draw": DRAWS, "observation": OBSERVATIONS, "z_dim": DIM}
    np.testing.assert_array_equal(kept.isel(draw=-1), np.asarray(last.position).swapaxes(0, 1))
    told = data["constant_data"]
    for name in types.Info._fields:
        assert told[name].dims == ("observation",)
        np.testing.assert_array_equal(told[name], getattr(info, name))


def test_codes_of_several_parts_are_a_variable_each(sampled):
    z, _, info, _ = sampled
    data = bridge.to_inference_data({"shared": z, "private": {"a": z[..., :1]}}, info, num_chains=CHAINS)
    assert set(data["posterior"].data_vars) == {"shared", "private_a"}
    assert data["posterior"]["private_a"].sizes["private_a_dim"] == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_chains": 0}, "Expected from 1 to 600 chains behind 600 draws, got 0"),
        ({"num_chains": 601}, "Expected from 1 to 600 chains"),
        ({"num_chains": 4, "log_density": np.zeros((600, 2))}, r"log densities of shape \(600, 3\), got \(600, 2\)"),
    ],
)
def test_nonsense_is_refused(sampled, options, message):
    with pytest.raises(ValueError, match=message):
        bridge.to_inference_data(sampled[0], sampled[2], **options)


def test_draws_of_other_observations_are_refused(sampled):
    with pytest.raises(ValueError, match="of the Info's B = 3"):
        bridge.to_inference_data(sampled[0][:, :2], sampled[2], num_chains=CHAINS)


def test_a_missing_library_says_what_to_install(sampled, monkeypatch):
    monkeypatch.setitem(sys.modules, "arviz", None)
    with pytest.raises(ValueError, match=r'pip install "jnf_jax\[arviz\]"'):
        bridge.to_inference_data(sampled[0], sampled[2], num_chains=CHAINS)


class OfTheOtherVersion:
    """Records the call, as each version takes it."""

    def __init__(self, version):
        self.__version__ = version

    def from_dict(self, *args, **options):
        return args, options


@pytest.mark.parametrize(("version", "positional"), [("0.23.4", 0), ("1.0.0", 1), ("1.3.0", 1)])
def test_groups_are_one_argument_from_version_1_on(sampled, monkeypatch, version, positional):
    monkeypatch.setitem(sys.modules, "arviz", OfTheOtherVersion(version))
    args, options = bridge.to_inference_data(sampled[0], sampled[2], num_chains=CHAINS)
    assert len(args) == positional
    groups = args[0] if args else options
    assert {"posterior", "constant_data"} <= set(groups)
    assert options["dims"]["z"] == ["observation", "z_dim"]


@pytest.mark.slow
def test_arviz_1_agrees_too(tmp_path):
    """In a folder of its own, without regard to the Python that it asks for: its packages are plain Python."""
    wanted = ["arviz>=1", "arviz-base>=1", "arviz-stats>=1", "arviz-plots>=1"]
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--ignore-requires-python", "--target", tmp_path]
    subprocess.run([*install, *wanted], check=True)
    root = pathlib.Path(__file__).parents[2]
    paths = os.pathsep.join(map(str, (tmp_path, root)))
    code = "import arviz, sys, pytest; assert arviz.__version__ >= '1'; sys.exit(pytest.main(sys.argv[1:]))"
    chosen = "r_hat_and_ess or trend or chains_keep or several_parts"
    result = subprocess.run(
        [sys.executable, "-c", code, "-q", __file__, "-k", chosen],
        cwd=root, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
    assert "4 passed" in result.stdout
