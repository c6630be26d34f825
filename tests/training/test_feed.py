import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jnf_jax.data import stream
from jnf_jax.models import base
from jnf_jax.training import feed, fit, sharding

CONFIG = fit.Config(
    num_steps=40, batch_size=8, learning_rate=0.05, steps_per_call=10, calls_per_validation=1, schedule="constant"
)


def loss(params, key, batch):
    noise = 0.1 * jax.random.normal(key, batch["y"].shape, batch["y"].dtype)
    return ((batch["x"] @ params["slope"] - batch["y"] + noise) ** 2).mean(), {}


STAGE = base.Stage(name="regression", trainable=("slope",), loss=loss)
PARAMS = {"slope": jnp.zeros(3, jnp.float32), "frozen": jnp.full(3, 2.0, jnp.float32)}


@pytest.fixture
def both(tmp_path):
    """The same examples in memory and in files."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(70, 3)).astype(np.float32)
    memory = {"x": x, "y": x @ np.asarray([1.0, -2.0, 0.5], np.float32)}
    for name, value in memory.items():
        np.save(tmp_path / f"{name}.npy", value)
    return memory, {name: stream.Rows(tmp_path / f"{name}.npy") for name in memory}


class Recorder:
    def __init__(self, start=None):
        self.states, self.start = [], start

    def latest(self, like):
        return self.start

    def save(self, state, **_):
        self.states.append(jax.tree.map(np.array, state))


def train(data, validation, stage=STAGE, **options):
    reports = []
    params, _ = fit.fit(stage, PARAMS, jax.random.key(0), data, validation, config=CONFIG, on_report=reports.append, **options)
    return np.asarray(params["slope"]), [r.loss for r in reports], [r.validation_loss for r in reports]


@pytest.mark.parametrize("devices", [1, 4])
def test_data_in_files_train_bit_for_bit_as_data_in_memory(both, devices):
    memory, files = both
    mesh = sharding.make_mesh(devices)
    expected, streamed = train(memory, memory, mesh=mesh), train(files, memory, mesh=mesh)
    for ours, theirs in zip(streamed, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_validation_data_in_files_give_the_same_loss(both):
    memory, files = both
    np.testing.assert_allclose(train(memory, files)[2], train(memory, memory)[2], rtol=1e-5)


def test_a_streamed_run_continued_from_any_checkpoint_is_bit_for_bit_the_same(both):
    _, files = both
    whole = Recorder()
    expected = train(files, files, checkpoints=whole)[0]
    assert len(whole.states) == 4
    for state in whole.states[:-1]:
        np.testing.assert_array_equal(train(files, files, checkpoints=Recorder(start=state))[0], expected)


def test_what_a_stage_prepares_is_computed_as_it_goes(both):
    memory, files = both
    prepared = dataclasses.replace(
        STAGE,
        prepare=lambda params, batch: {"x": batch["x"] * params["frozen"], "y": batch["y"]},
    )
    assert fit.prepare(prepared, PARAMS, files, batch_size=16) is files
    expected = train(fit.prepare(prepared, PARAMS, memory, batch_size=16), memory, prepared)[:2]
    for ours, theirs in zip(train(files, memory, prepared)[:2], expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4)


def test_a_process_reads_the_rows_of_its_own_devices_alone(both):
    _, files = both
    read = []
    rows = files["x"]
    original = rows.__class__._read
    stream.Rows._read = lambda self, chosen: read.append(len(chosen)) or original(self, chosen)
    try:
        next(feed.calls({"x": rows}, jax.random.key(0), sharding.make_mesh(4), batch_size=8, num_steps=5,
                        first_step=0, total_steps=5))  # fmt: skip
    finally:
        stream.Rows._read = original
    assert read == [10] * 4  # five steps of two rows for each of four devices


def test_an_error_in_reading_reaches_the_training(both, tmp_path):
    _, files = both
    whole = (tmp_path / "x.npy").read_bytes()
    (tmp_path / "x.npy").write_bytes(whole[:-100])
    with pytest.raises(ValueError, match="Expected 70 whole examples"):
        train(files, files)


def test_the_order_is_that_of_the_call_a_step_lies_in(both):
    _, files = both
    options = {"batch_size": 8, "num_steps": 10, "total_steps": 40}
    start = lambda step: jax.device_get(
        next(feed.calls(files, jax.random.key(0), sharding.make_mesh(1), first_step=step, **options))
    )
    jax.tree.map(np.testing.assert_array_equal, start(10), start(17))
    assert (start(10)["y"] != start(20)["y"]).any()
