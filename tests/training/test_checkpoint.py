import json
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jnf_jax.training import checkpoint


class State(NamedTuple):
    step: jax.Array
    weights: dict


def state(value):
    return State(
        step=jnp.asarray(value, jnp.int32), weights={"a": jnp.full((3, 2), value, jnp.float32), "b": jnp.arange(4) * value}
    )


def test_round_trip_of_the_newest(tmp_path):
    directory = checkpoint.Directory(tmp_path / "c")
    assert directory.latest(state(0)) is None
    for value in (1, 2, 3):
        directory.save(state(value), step=10 * value)
    assert directory.steps() == [20, 30]
    restored = directory.latest(state(0))
    assert isinstance(restored, State)
    jax.tree.map(np.testing.assert_array_equal, restored, state(3))


def test_a_step_without_manifest_was_never_finished(tmp_path):
    directory = checkpoint.Directory(tmp_path)
    directory.save(state(1), step=1)
    directory.save(state(2), step=2)
    directory.wait()
    (tmp_path / "2.json").unlink()
    assert int(directory.latest(state(0)).step) == 1
    directory.save(state(5), step=2)  # and can be written again
    assert int(directory.latest(state(0)).step) == 5


def files_of(tmp_path, step):
    return [p for p in (tmp_path / str(step)).rglob("*") if p.is_file() and p.stat().st_size]


def test_every_flipped_byte_is_noticed(tmp_path):
    directory = checkpoint.Directory(tmp_path)
    directory.save(state(1), step=1)
    directory.save(state(2), step=2)
    directory.wait()
    for path in files_of(tmp_path, 2):
        whole = path.read_bytes()
        path.write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
        assert int(directory.latest(state(0)).step) == 1
        assert str(path) in directory.damaged[0]
        path.write_bytes(whole)
    assert int(directory.latest(state(0)).step) == 2


def test_only_damaged_checkpoints_are_an_error_that_names_the_file(tmp_path):
    directory = checkpoint.Directory(tmp_path)
    directory.save(state(1), step=1)
    directory.wait()
    path = files_of(tmp_path, 1)[0]
    path.unlink()
    with pytest.raises(ValueError, match=f"damaged ones only: {path} is missing"):
        directory.latest(state(0))


@pytest.mark.parametrize(
    ("like", "message"),
    [
        (
            State(jnp.zeros((), jnp.int32), {"a": jnp.zeros((3, 5), jnp.float32), "b": jnp.arange(4)}),
            r"float32 of shape \(3, 5\) for .*'a'",
        ),
        (State(jnp.zeros(()), {"a": jnp.zeros((3, 2), jnp.float32), "b": jnp.arange(4)}), r"float64 of shape \(\) for .step"),
        (State(jnp.zeros((), jnp.int32), {"a": jnp.zeros((3, 2), jnp.float32)}), r"Expected nothing for .*'b'"),
    ],
)
def test_a_leaf_that_differs_is_named(tmp_path, like, message):
    directory = checkpoint.Directory(tmp_path)
    directory.save(state(1), step=1)
    with pytest.raises(ValueError, match=message):
        directory.latest(like)


def test_json_is_replaced_whole(tmp_path):
    path = tmp_path / "x.json"
    checkpoint.write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        checkpoint.write_json(path, {"a": object()})
    assert json.loads(path.read_text()) == {"a": 1}
