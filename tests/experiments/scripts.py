"""Running the commands as a user does: in processes other than the tests'."""

import json
import os
import pathlib
import subprocess
import sys

import xla

ROOT = pathlib.Path(__file__).parents[2]
SHORT = ["--data.num-train", "600", "--data.num-validation", "100", "--data.num-test", "60", "--model.flow.hidden", "8", "8",
         "--training.joint.num-steps", "400", "--training.experts.num-steps", "400",
         "--training.joint.batch-size", "32", "--training.experts.batch-size", "32",
         "--training.joint.steps-per-call", "20", "--training.experts.steps-per-call", "20",
         "--training.joint.calls-per-validation", "2", "--training.experts.calls-per-validation", "2"]  # fmt: skip


def environment():
    """A user's environment: one device, float32, a wide terminal, in which tables keep their headings whole."""
    return {**os.environ, "COLUMNS": "200", "XLA_FLAGS": xla.flags(1)}


def run(module, *arguments, check=True):
    result = subprocess.run(
        [sys.executable, "-m", f"experiments.{module}", *map(str, arguments)],
        cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    if check:
        assert result.returncode == 0, result.stdout + result.stderr
    return result


_TOGETHER = """
import importlib, json, sys
from experiments import experiment
for module, *arguments in json.loads(sys.stdin.read()):
    sys.argv = [module, *arguments]
    try:
        experiment.main(importlib.import_module(f"experiments.{module}").main)
    except SystemExit as ended:
        assert not ended.code, (module, ended.code)
"""


def run_together(*commands):
    """Runs commands (module, *arguments) one after another in one process, which imports what they need once."""
    result = subprocess.run(
        [sys.executable, "-c", _TOGETHER], input=json.dumps([list(map(str, c)) for c in commands]),
        cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr


def command(*arguments, cwd):
    """Runs `jnf-jax` with nothing of the clone on the path but the package that it lies in."""
    settings = {**environment(), "PYTHONPATH": str(ROOT), "PYTHONSAFEPATH": "1"}
    return subprocess.run(
        [sys.executable, "-m", "jnf_jax_experiments", *map(str, arguments)],
        cwd=cwd, env=settings, capture_output=True, text=True, timeout=600,
    )  # fmt: skip


def params_files(workdir):
    """The finished stages, by the digests of their files' contents."""
    import hashlib

    import jax
    import numpy as np

    from experiments import run_folder
    from jnf_jax import configs
    from jnf_jax.training import stages

    config = run_folder.load(workdir)
    model = configs.build(config.model, configs.build(config.data, "train").specs)
    leaves = jax.tree.leaves(stages.load(model, workdir))
    return hashlib.sha256(b"".join(np.asarray(leaf).tobytes() for leaf in leaves)).hexdigest()


def digest(workdir):
    code = (
        "import sys, pathlib; sys.path[:0] = ['tests', 'tests/experiments']; import scripts; "
        "print(scripts.params_files(pathlib.Path(sys.argv[1])))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, str(workdir)], cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()
