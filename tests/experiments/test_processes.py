"""Two processes of two devices each, which meet through gloo, as a user starts them."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
import xla

ROOT = pathlib.Path(__file__).parents[2]
HEARTBEAT = 10
SHORT = ["--data.num-train", "600", "--data.num-validation", "100", "--data.num-test", "60", "--model.flow.hidden", "8", "8",
         "--model.num-codes", "300"]  # fmt: skip


def stages(steps):
    options = {"num-steps": steps, "batch-size": 32, "steps-per-call": 20, "calls-per-validation": 1}
    return [text for s in ("joint", "experts") for k, v in options.items() for text in (f"--training.{s}.{k}", str(v))]


def start(workdir, steps, *, devices, arguments=()):
    environment = {**os.environ, "XLA_FLAGS": xla.flags(devices)}
    command = ["experiments.train", "linear_gaussian/jnf", "--workdir", workdir, *SHORT, *stages(steps), *arguments]
    last = pathlib.Path(*arguments[-1:]).name
    with pathlib.Path(f"{workdir}.{last}.log").open("a") as log:
        return subprocess.Popen([sys.executable, "-m", *map(str, command)], cwd=ROOT, env=environment, stdout=log, stderr=log)


def start_two(workdir, steps, arguments=()):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    common = ["--coordinator", f"localhost:{port}", "--num-processes", "2", "--heartbeat", str(HEARTBEAT), "--process-id"]
    return [start(workdir, steps, devices=2, arguments=[*arguments, *common, str(i)]) for i in (0, 1)]


def codes(processes, timeout=1800):
    try:
        return [process.wait(timeout) for process in processes]
    finally:
        for process in processes:
            process.kill()


def rows(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def saved(workdir):
    return sorted(int(path.stem) for path in workdir.glob("checkpoints/joint/*.json"))


def wait_for_a_checkpoint(workdir, processes):
    while not saved(workdir):
        assert all(process.poll() is None for process in processes)
        time.sleep(0.05)


@pytest.mark.slow
def test_two_processes_train_what_one_does(tmp_path):
    assert codes([start(tmp_path / "one", 60, devices=1)]) == [0]
    assert codes(start_two(tmp_path / "two", 60)) == [0, 0]
    ours, theirs = rows(tmp_path / "two"), rows(tmp_path / "one")
    assert [(row["stage"], row["step"]) for row in ours] == [(row["stage"], row["step"]) for row in theirs]
    for name in ("loss", "validation_loss", "gradient_norm"):
        np.testing.assert_allclose([row[name] for row in ours], [row[name] for row in theirs], rtol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("flag", ["--finetune", "--init-from"])
def test_two_processes_take_what_another_run_learnt(tmp_path, flag):
    assert codes([start(tmp_path / "one", 20, devices=1)]) == [0]
    given = [flag, str(tmp_path / "one")]
    assert codes(start_two(tmp_path / "two", 20, given)) == [0, 0]
    assert codes([start(tmp_path / "alone", 20, devices=1, arguments=given)]) == [0]
    ours, theirs = rows(tmp_path / "two"), rows(tmp_path / "alone")
    assert [(row["stage"], row["step"]) for row in ours] == [(row["stage"], row["step"]) for row in theirs]
    np.testing.assert_allclose([row["loss"] for row in ours], [row["loss"] for row in theirs], rtol=1e-3)
    assert codes(start_two(tmp_path / "two", 20, given)) == [0, 0]  # finished, and the same command


@pytest.mark.slow
def test_a_signal_to_one_process_saves_one_common_step_and_the_command_continues(tmp_path):
    workdir = tmp_path / "run"
    processes = start_two(workdir, 100_000)
    wait_for_a_checkpoint(workdir, processes)
    processes[1].send_signal(signal.SIGTERM)
    assert codes(processes) == [130, 130]
    last = saved(workdir)[-1]
    assert rows(workdir)[-1]["step"] == last
    processes = start_two(workdir, 100_000)
    while rows(workdir)[-1]["step"] <= last:
        assert all(process.poll() is None for process in processes)
        time.sleep(0.1)
    assert rows(workdir)[-1]["step"] > last
    processes[0].send_signal(signal.SIGTERM)
    assert codes(processes) == [130, 130]
    assert [row["step"] for row in rows(workdir)] == list(range(20, rows(workdir)[-1]["step"] + 1, 20))


@pytest.mark.slow
@pytest.mark.parametrize("victim", [1, 0], ids=["worker", "coordinator"])
def test_a_killed_process_ends_the_other_with_an_error_and_the_command_continues(tmp_path, victim):
    workdir = tmp_path / "run"
    processes = start_two(workdir, 100_000)
    wait_for_a_checkpoint(workdir, processes)
    processes[victim].kill()
    killed = time.monotonic()
    assert processes[1 - victim].wait(20 * HEARTBEAT) not in (0, 130)
    assert time.monotonic() - killed < 4 * HEARTBEAT  # what a loaded machine adds included
    codes(processes)
    last = saved(workdir)[-1]
    processes = start_two(workdir, 100_000)
    while saved(workdir)[-1] <= last:
        assert all(process.poll() is None for process in processes)
        time.sleep(0.1)
    processes[0].send_signal(signal.SIGTERM)
    assert codes(processes) == [130, 130]
