import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jnf_jax import compiling, types
from jnf_jax.flows import identity
from jnf_jax.posteriors import hmc, product

ROOT = pathlib.Path(__file__).parents[1]
FLOW = identity.build(identity.Config(), 2)
BASE = types.Gaussian(jnp.asarray([[[1.0, 0.0], [0.0, 1.0]]]), jnp.full((1, 2, 2), 0.5))
CONFIG = hmc.Config(num_warmup=20, num_chains=2, max_leapfrog_steps=2)


def draws(key, base):
    rule = product.Rule(kind="prior", flow=FLOW)
    return product.sample(rule, product.Shared({}), key, base, num_samples=2, config=CONFIG)[0]


def test_tuned_chains_draw_what_plain_ones_draw_within_another_jit_too():
    tuned = compiling.jit(draws)
    expected = jax.jit(draws)(jax.random.key(0), BASE)
    np.testing.assert_allclose(tuned(jax.random.key(0), BASE), expected, atol=1e-8)
    np.testing.assert_allclose(jax.jit(lambda key: tuned(key, BASE))(jax.random.key(0)), expected, atol=1e-8)


@pytest.mark.parametrize("compiled", [compiling.jit, compiling.quickly])
def test_constants_of_another_jit_are_taken(compiled):
    double = compiled(lambda y: 2 * y)
    np.testing.assert_array_equal(jax.jit(lambda x: x + double(np.ones(3)))(np.zeros(3)), 2 * np.ones(3))

    def refuses(y):
        raise ValueError("Expected another y.")

    with pytest.raises(ValueError, match="another y"):
        compiled(refuses)(np.ones(3))


def test_chains_transfer_nothing_from_or_to_the_host():
    tuned = compiling.jit(draws)
    key, host = jax.random.key(0), jax.device_get(BASE)
    tuned(key, BASE)
    with jax.transfer_guard("disallow"):
        last = jax.block_until_ready(tuned(key, BASE))
        with pytest.raises(Exception, match="Disallowed host-to-device transfer"):
            tuned(key, jax.tree.map(np.zeros_like, host))
    assert jnp.isfinite(last).all()


@pytest.mark.parametrize("compiled", [compiling.jit, compiling.quickly])
def test_static_arguments_are_told_apart(compiled):
    scaled = compiled(lambda x, *, factor: x * factor, static_argnames="factor")
    assert [float(scaled(jnp.ones(()), factor=factor)) for factor in (2, 3)] == [2, 3]
    assert float(jax.jit(lambda x: scaled(x, factor=4))(jnp.ones(()))) == 4


def test_a_program_that_runs_once_gives_what_a_fast_one_gives():
    function = lambda key: jnp.tanh(jax.random.normal(key, (50, 3)) @ jnp.ones((3, 4)))
    once = compiling.once(function)
    np.testing.assert_allclose(once(jax.random.key(0)), jax.jit(function)(jax.random.key(0)), atol=1e-12)
    assert jax.eval_shape(once, jax.random.key(0)).shape == (50, 4)


def test_a_program_that_runs_once_is_not_kept_and_one_that_runs_again_is(monkeypatch):
    compiled = []
    monkeypatch.setattr(compiling, "_with_options", lambda function, *_: (None, lambda: compiled[0]))
    compiled.append(jax.jit(jnp.sin))
    once = compiling.once(jnp.sin)
    kept = []
    for number in range(3):
        assert float(once(jnp.ones(()) * number)) == pytest.approx(np.sin(number))
        kept.append(compiled[0]._cache_size())
    assert kept == [0, 1, 1]


@pytest.mark.parametrize(("least", "collected"), [(0.0, 2), (1e9, 0)])
def test_heap_is_given_back_after_long_compilations_alone(monkeypatch, least, collected):
    calls = []
    monkeypatch.setattr(compiling, "_WORTH_TRIMMING", least)
    monkeypatch.setattr(compiling.gc, "collect", lambda: calls.append(1))
    with compiling.trimming():
        pass
    assert len(calls) == collected


def test_a_batch_in_pieces_gives_what_the_whole_one_gives():
    batch = {"x": jax.random.normal(jax.random.key(0), (12, 2, 3)), "y": jnp.arange(12.0)}
    function = lambda batch: (batch["x"].sum(1), batch["y"] ** 2)
    for ours, expected in zip(compiling.mapped(function, batch, num=4), function(batch), strict=True):
        np.testing.assert_array_equal(ours, expected)


def test_pieces_are_equal_and_neither_large_nor_small():
    assert [compiling.num_pieces(size) for size in (0, 1, 100, 128, 1_000, 10_000)] == [1, 1, 1, 1, 8, 80]
    assert compiling.num_pieces(257) == 1  # a prime
    assert all(size % compiling.num_pieces(size) == 0 for size in range(1, 3_000))
    assert all(size / compiling.num_pieces(size) >= 32 for size in range(32, 3_000))


def test_a_large_batch_is_taken_in_pieces_on_one_cpu():
    """Tests have several devices, where a batch stays whole."""
    code = """
import jax, jax.numpy as jnp
from jnf_jax import compiling
sizes = []
def function(scale, x):
    sizes.append(len(x))
    return scale * x
assert (jax.jit(compiling.in_pieces(function))(2, jnp.arange(300.0)) == 2 * jnp.arange(300)).all()
compiling.in_pieces(function)(2, jnp.arange(128.0))
assert sizes == [100, 128], sizes
"""
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env={**os.environ, "XLA_FLAGS": ""}, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    sizes = []
    compiling.in_pieces(lambda x: sizes.append(len(x)) or x)(jnp.arange(300.0))
    assert sizes == [300]


@pytest.mark.parametrize("options", [{"xla_cpu_option_of_another_version": ""}, {}])
def test_an_xla_that_does_not_know_the_option_is_left_alone(monkeypatch, options):
    monkeypatch.setattr(compiling, "_FOR_SMALL_PRODUCTS", options)
    assert float(compiling.jit(lambda x: x + 1)(jnp.ones(()))) == 2
    assert compiling._understood(tuple(options.items())) == (not options)
    monkeypatch.setattr(compiling, "_FOR_TRAINING", options)
    assert float(compiling.for_training(jax.jit(lambda x: x + 1).lower(jnp.ones(())))(jnp.ones(()))) == 2


def test_training_steps_are_ordered_otherwise_where_xla_can_be_told_so():
    def layers(x, y):
        return [jnp.tanh(x @ y), jnp.tanh(y @ x), jnp.tanh(x.T @ y), jnp.tanh(x @ y.T)]

    lowered = jax.jit(lambda x, y: jnp.stack([a @ b for a, b in zip(layers(x, y), layers(y, x), strict=True)]).sum(0)).lower(
        *jnp.ones((2, 64, 64))
    )
    known = compiling._understood(tuple(compiling._FOR_TRAINING.items()))
    assert (compiling.for_training(lowered).as_text() != lowered.compile().as_text()) == known


CACHED = """
import sys, jax, jax.numpy as jnp, jnf_jax
jnf_jax.use_compilation_cache(*sys.argv[1:])
jax.jit(lambda x: jnp.linalg.eigh(x @ x.T + jax.random.normal(jax.random.key(0), x.shape)))(jnp.ones((9, 9)))
"""


@pytest.mark.parametrize(
    ("arguments", "variable", "expected"), [([], None, "cache/xla"), (["own"], None, "own"), (["own"], "set", "set")]
)
def test_compiled_programs_are_kept_where_one_wants_them(tmp_path, arguments, variable, expected):
    settings = {**os.environ, "JNF_CACHE_DIR": str(tmp_path / "cache"), "PYTHONPATH": str(ROOT)}
    settings.pop("JAX_COMPILATION_CACHE_DIR", None)
    settings["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    settings |= {} if variable is None else {"JAX_COMPILATION_CACHE_DIR": variable}
    subprocess.run([sys.executable, "-c", CACHED, *arguments], cwd=tmp_path, env=settings, check=True)
    assert list((tmp_path / expected).iterdir())
    assert len({p.parts[len(tmp_path.parts)] for p in tmp_path.rglob("*")}) == 1


def test_what_xla_flags_say_goes_before(monkeypatch):
    asked = []
    monkeypatch.setattr(compiling, "_understood", lambda options: asked.append(dict(options)))
    monkeypatch.setattr(compiling, "_FOR_ONE_RUN", {"xla_backend_optimization_level": 0, "xla_other": 1})
    for flags in ("--xla_backend_optimization_level=3", "--xla_backend_optimization_level_of_another=3"):
        monkeypatch.setenv("XLA_FLAGS", flags)
        assert float(compiling.once(lambda x: x + 1)(jnp.ones(()))) == 2
    assert asked == [{"xla_other": 1}, {"xla_backend_optimization_level": 0, "xla_other": 1}]
