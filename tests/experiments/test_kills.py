"""SIGKILL at random times, saves and stage changes included: the final parameters are those of the run left alone, bit for bit."""

import json
import os
import pathlib
import subprocess
import sys

import pytest
import scripts

HERE = pathlib.Path(__file__).parent


def kill(tmp_path, kills, *arguments):
    """Returns what was done, having checked that every run's finished weights are those of the run left alone."""
    paths = os.pathsep.join(map(str, (scripts.ROOT, HERE.parent / "training")))
    settings = {
        **scripts.environment(), "PYTHONPATH": paths, "JNF_CACHE_DIR": str(tmp_path / "cache"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }  # fmt: skip
    result = subprocess.run(
        [sys.executable, str(HERE / "kills.py"), str(tmp_path), str(kills), "0", *arguments],
        cwd=scripts.ROOT, env=settings, stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    done = json.loads(result.stdout.splitlines()[-1])
    print(done)
    alone = values(tmp_path / "alone")
    assert alone
    for number in range(done["runs"]):
        assert values(tmp_path / f"run{number}") == alone
    assert done["kills"] == kills
    return done


def values(workdir):
    """Finished stage -> the digest of its weights."""
    contents = {p.parent.name: json.loads(p.read_text())["content"] for p in workdir.glob("params/*/*.json")}
    return {stage: content["values"] for stage, content in contents.items()}


@pytest.mark.slow
def test_50_kills_of_two_stages(tmp_path):
    kill(tmp_path, 50)


@pytest.mark.slow
def test_kills_of_the_command(tmp_path):
    kill(tmp_path, 10, "linear_gaussian/jnf", *scripts.SHORT)
    rows = [json.loads(line) for line in (tmp_path / "run0" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if row["stage"] == "joint"] == list(range(20, 401, 20))
