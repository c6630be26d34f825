"""What else lies in a run's folder: damaged files end in a clear line, or are made again."""

import collections
import dataclasses
import importlib
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import jax
import pytest

from experiments import experiment, parts, run_folder, stopping, train
from jnf_jax.training import checkpoint, writers

ROOT = pathlib.Path(__file__).parents[2]
CONFIG = experiment.find("linear_gaussian/jnf")


@pytest.fixture
def run(tmp_path):
    run_folder.create(tmp_path / "run", CONFIG)
    return tmp_path / "run"


def broken(rng, content):
    kind = rng.randrange(4)
    if kind == 0:
        place = rng.randrange(len(content))
        return content[:place] + bytes([content[place] ^ 1 << rng.randrange(8)]) + content[place + 1 :]
    if kind == 1:
        return content[: rng.randrange(len(content))]
    if kind == 2:
        return b"\xff\xfe" + content
    return rng.choice(
        [b"", b"[1]", b"null", b'"x"', b"[" * 100_000, b'{"type": "os:system"}', b'{"type": "jnf_jax.nowhere:X"}']
    )


def test_a_damaged_config_is_named_and_written_again_by_the_command_that_began_the_run(run):
    path = run / "config.json"
    whole, outcomes = path.read_bytes(), collections.Counter()
    for seed in range(60):
        path.write_bytes(broken(random.Random(seed), whole))
        try:
            assert run_folder.load(run) == CONFIG
            outcomes["harmless"] += 1
        except ValueError as error:
            assert str(error).startswith("Expected the config"), error
            outcomes["refused"] += 1
        run_folder.check_free(run, CONFIG)  # the sum in environment.json tells that it is this run's
    print(outcomes)
    assert outcomes["refused"] >= 55
    path.write_bytes(b"?")
    (run / "environment.json").unlink()
    with pytest.raises(ValueError, match=r"config\.json holds no JSON.*--overwrite"):
        run_folder.check_free(run, CONFIG)


def test_a_folder_whose_config_is_gone_is_not_taken_for_an_empty_one(run):
    (run / "config.json").unlink()
    (run / "params" / "joint").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"Expected a config\.json beside"):
        run_folder.check_free(run, CONFIG)
    run_folder.remove(run)
    assert list(run.iterdir()) == []
    run_folder.check_free(run, CONFIG)


def test_damaged_results_are_set_aside_and_damaged_parts_found_again(tmp_path, capsys):
    path = tmp_path / "evaluation.parts.json"
    parts.Parts(path, {"seed": 0}).get("a", lambda: {"value": 1.5})
    whole = path.read_bytes()
    for seed in range(60):
        path.write_bytes(broken(random.Random(seed), whole))
        assert parts.Parts(path, {"seed": 0}).get("a", lambda: {"value": 1.5}) == {"value": 1.5}
    path.write_bytes(b"\xff")
    assert parts.known(path) == {}
    assert (tmp_path / "evaluation.parts.json.damaged").read_bytes() == b"\xff"
    assert "holds no JSON" in capsys.readouterr().err


def test_rows_of_metrics_that_are_none_are_left_out(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"stage": "a", "step": 1}\n\xff\xfe\n[1]\n{"stage": 3}\n{"stage": "a", "st')
    assert writers.read_metrics(path) == [{"stage": "a", "step": 1}]
    metrics = writers.MetricsFile(path)
    metrics.rewind("a", 1)
    metrics.close()
    assert path.read_text() == '{"stage": "a", "step": 1}\n'


@pytest.mark.parametrize("value", [0, -3])
def test_counts_that_make_no_sense_are_named(value):
    from experiments import evaluate

    arguments = evaluate.Arguments(workdir=None, num_samples=value)
    with pytest.raises(ValueError, match=f"Expected --num-samples of at least 1, got {value}"):
        experiment.check_counts(arguments, "num_observations", "num_samples")


@pytest.mark.parametrize(
    ("verb", "flag"),
    [("product_gap", "num-observations"), ("product_gap", "chain-draws"), ("figures", "num-traced"), ("evaluate", "num-prior")],
)
def test_commands_refuse_counts_that_make_no_sense(monkeypatch, verb, flag):
    module = importlib.import_module(f"experiments.{verb}")
    monkeypatch.setattr("sys.argv", [verb, "--workdir", "anywhere", f"--{flag}", "-5"])
    with pytest.raises(ValueError, match=f"Expected --{flag} of at least 1, got -5"):
        module.main()


def test_a_picture_of_a_million_tiles_is_refused(monkeypatch):
    from experiments import sample

    monkeypatch.setattr("sys.argv", ["sample", "--workdir", "anywhere", "--num-samples", "1000000"])
    with pytest.raises(ValueError, match="Expected --num-samples of at most 100 in a picture, got 1000000; --all"):
        sample.main()


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="Expected a work directory that can be written"), run_folder.lease(tmp_path / "file"):
        pass


def test_a_taken_stage_becomes_one_of_this_runs_key(tmp_path):
    directory = checkpoint.Directory(tmp_path, about={"stage": "joint", "key": [0, 1]})
    weights = {"a": jax.numpy.arange(3.0)}
    directory.save(weights, step=1)
    directory.adopt({"key": [0, 2]})
    assert checkpoint.Directory(tmp_path, about={"stage": "joint", "key": [0, 2]}).latest(weights) is not None
    with pytest.raises(ValueError, match=r"key: \[0, 2\] -> \[0, 3\]"):
        checkpoint.Directory(tmp_path, about={"stage": "joint", "key": [0, 3]}).latest(weights)


def test_a_pace_is_that_of_a_second_and_doubles_at_most(monkeypatch):
    clock = iter([0.0, 0.1, 0.2, 0.3, 5.0, 5.4, 6.2])
    monkeypatch.setattr(writers.time, "monotonic", lambda: next(clock))
    pace = writers.Pace(1.0)
    assert [pace(50) for _ in range(5)] == [1, 2, 4, 8, 1]  # the last eight took 4.7 s
    assert [pace(50), pace(1)] == [2, 1]  # steps of 0.4 s: two at once, but only one was left


def test_a_question_is_answered_by_a_signal():
    stop = stopping.Stop()
    with stop.listening():
        assert not stop.asked()
        os.kill(os.getpid(), signal.SIGTERM)
        deadline = time.monotonic() + 30
        while not stop.received and time.monotonic() < deadline:
            time.sleep(0.01)
        assert stop.asked()


def run_python(code):
    """Runs a program in a process of its own, which may be ended."""
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300)


def test_two_signals_at_once_are_one_and_a_later_one_ends_the_process():
    code = (
        "import os, signal, time; from experiments import stopping\n"
        "stop = stopping.Stop(continuing='it goes on')\n"
        "def send():\n"
        "    before = len(stop.received); os.kill(os.getpid(), signal.SIGTERM); deadline = time.monotonic() + 60\n"
        "    while len(stop.received) == before and time.monotonic() < deadline: time.sleep(0.01)\n"
        "with stop.listening():\n"
        "    stopping._SAME_SIGNAL = 1e9; stop.asked(), send(), send()\n"
        "    print(stop.asked(), len(stop.received), flush=True)\n"
        "    stopping._SAME_SIGNAL = 0.0; send()\n"
        "    print('still here')"
    )
    result = run_python(code)
    assert result.stdout == "True 2\n"
    assert result.returncode == stopping.INTERRUPTED
    assert "stopped by signal 15; it goes on" in result.stderr


def test_another_config_is_refused_with_both_values_and_overwrite_starts_again(run, monkeypatch):
    monkeypatch.setattr(train.stages, "train", lambda *arguments, **options: ({}, True))
    (run / "params" / "joint").mkdir(parents=True)
    (run / "notes.txt").write_text("mine")
    other = dataclasses.replace(CONFIG, seed=7)
    options = {"taken": None, "stop": stopping.Stop(), "policy": checkpoint.Policy(), "minutes": None}
    with pytest.raises(ValueError, match=r"\(the run's -> these\): seed: 0 -> 7\."):
        train.train(other, run, overwrite=False, **options)
    assert (run / "params").exists()
    assert train.train(other, run, overwrite=True, **options) == 0
    assert not (run / "params").exists()
    assert (run / "notes.txt").exists()
    assert run_folder.load(run) == other
    assert train.train(other, run, overwrite=False, **options) == 0  # the same command again


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting takes root")
@pytest.mark.slow
def test_a_read_only_disk_is_named(tmp_path):
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro,size=1m", "tmpfs", tmp_path], check=True)
    try:
        with (
            pytest.raises(ValueError, match=r"can be written, got .*: Read-only file system"),
            run_folder.lease(tmp_path / "a"),
        ):
            pass
    finally:
        subprocess.run(["umount", "-l", tmp_path], check=True)


def test_the_watchdog_ends_what_hangs_with_a_traceback():
    code = (
        "import time; from experiments import stopping\n"
        "def hang(): time.sleep(60)\n"
        "stop = stopping.Stop(watchdog=4.0)\n"
        "with stop.listening():\n"
        "    for _ in range(5): time.sleep(1.0), stop.asked()\n"
        "    print('alive', flush=True); hang()"
    )
    result = run_python(code)
    assert result.stdout == "alive\n"  # being asked kept it alive for longer than its seconds
    assert result.returncode == 1
    assert "in hang" in result.stderr


def test_a_signal_ends_at_once_what_would_lose_nothing_even_in_a_call_that_does_not_return():
    code = (
        "import ctypes; from experiments import stopping\n"
        "stop = stopping.Stop()\n"
        "with stop.listening():\n"
        "    c, mutex = ctypes.CDLL(None), ctypes.create_string_buffer(64); c.pthread_mutex_lock(mutex)\n"
        "    print('ready', flush=True); c.pthread_mutex_lock(mutex)  # for ever: no signal interrupts it"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "ready\n"
    process.terminate()
    assert process.wait(60) == stopping.INTERRUPTED
    assert "the same command continues" in process.stderr.read()
