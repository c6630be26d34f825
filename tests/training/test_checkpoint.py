import contextlib
import errno
import json
import os
import signal
import subprocess
import threading
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jnf_jax.training import checkpoint, files, sharding


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


def test_a_file_that_does_not_belong_to_a_checkpoint_is_noticed(tmp_path):
    directory = checkpoint.Directory(tmp_path)
    directory.save(state(1), step=1)
    directory.wait()
    (tmp_path / "1" / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"1/notes\.txt does not belong there"):
        directory.latest(state(0))


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
    files.write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        files.write_json(path, {"a": object()})
    assert json.loads(path.read_text()) == {"a": 1}


def test_the_newest_the_best_and_every_nth_are_kept(tmp_path):
    directory = checkpoint.Directory(tmp_path, policy=checkpoint.Policy(keep=2, keep_every=40))
    losses = {10: 3.0, 20: 1.0, 30: 2.0, 40: 1.5, 50: None, 60: 4.0, 70: float("nan")}
    for step, loss in losses.items():
        directory.save(state(step), step=step, loss=loss)
    assert directory.steps() == [20, 40, 60, 70]
    directory.save(state(21), step=21)  # continued from an older one: what came after it is given up
    assert directory.steps() == [20, 21]


def test_what_is_saved_is_what_was_there_when_save_was_called(tmp_path):
    """The next step overwrites its arrays while they are being written."""
    directory = checkpoint.Directory(tmp_path)
    weights = {"a": np.arange(6.0)}
    directory.save(weights, step=1)
    weights["a"][:] = -1
    np.testing.assert_array_equal(directory.latest(weights)["a"], np.arange(6.0))


def test_a_state_restores_onto_another_topology(tmp_path):
    saved, like = ({"a": jax.device_put(jnp.arange(8.0), sharding.over_batch(sharding.make_mesh(n)))} for n in (4, 1))
    for name, first, other in (("down", saved, like), ("up", like, saved)):
        directory = checkpoint.Directory(tmp_path / name)
        directory.save(first, step=1)
        found = directory.latest(other)["a"]
        np.testing.assert_array_equal(found, np.arange(8.0))
        assert found.sharding == other["a"].sharding


def test_a_state_that_cannot_be_written_is_told_and_the_next_one_is_tried(tmp_path, monkeypatch):
    told = []
    directory = checkpoint.Directory(tmp_path, on_trouble=told.append)
    directory.save(state(1), step=1)
    directory.wait()
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint._orbax(), "save", lambda folder, tree: (folder.mkdir(), no_room()))
        directory.save(state(2), step=2)
        with pytest.raises(checkpoint.SaveError, match="No space left on device"):
            directory.wait()
    assert len(told) == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["1", "1.json"]
    assert int(directory.latest(state(0)).step) == 1
    directory.save(state(3), step=3)
    directory.wait()
    assert int(directory.latest(state(0)).step) == 3


def no_room():
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="mounting takes root")
def test_training_goes_on_over_a_full_disk_and_saves_again_once_there_is_room(tmp_path):
    """On a tmpfs of 3 MB: filled up after the first save, and emptied again later."""
    disk, ballast, told, steps = tmp_path / "disk", tmp_path / "disk" / "ballast", [], []
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", disk], check=True)
    try:
        directory = checkpoint.Directory(disk / "c", on_trouble=told.append)
        for value in range(1, 9):
            if value == 3:
                with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
                    while True:
                        file.write(bytes(4096))
            if value == 6:
                ballast.unlink()
            directory.save({"a": np.full(50_000, value, np.float32)}, step=value)
            steps.append(directory.steps())
            assert int(directory.latest({"a": np.zeros(50_000, np.float32)})["a"][0]) == steps[-1][-1]
    finally:
        subprocess.run(["umount", "-l", disk], check=True)
    print(steps, told)
    assert [s[-1] for s in steps] == [1, 2, 2, 2, 2, 6, 7, 8]
    assert len(told) == 3
    assert all(line.startswith("No space left on device in ") for line in told)


def test_what_is_set_aside_is_named_so_that_all_processes_can_be_told(tmp_path):
    directory = checkpoint.Directory(tmp_path / "joint")
    directory.save({"x": np.zeros(2)}, step=1)
    directory.wait()
    name = directory.set_aside()
    assert json.loads(json.dumps(name)) == name == "joint.damaged"
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_write_that_an_interrupted_training_left_under_way_is_waited_for(tmp_path, monkeypatch):
    began, may_end = threading.Event(), threading.Event()
    save = checkpoint._orbax().save

    def slow(*args):
        began.set()
        assert may_end.wait(60)
        save(*args)

    monkeypatch.setattr(checkpoint._orbax(), "save", slow)
    checkpoint.Directory(tmp_path).save(state(1), step=1)  # by a call that ended in an exception
    assert began.wait(60)
    threading.Timer(0.5, may_end.set).start()
    assert checkpoint.Directory(tmp_path).newest() == 1


@pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore::DeprecationWarning")
def test_a_forked_process_reads_what_its_parent_wrote(tmp_path):
    directory = checkpoint.Directory(tmp_path)
    directory.save(state(1), step=1)
    directory.wait()
    child = os.fork()
    if not child:
        signal.alarm(30)
        os._exit(checkpoint.Directory(tmp_path).steps() != [1])
    assert os.waitpid(child, 0)[1] == 0
