"""Every benchmark's experiment runs from its raw files to its evaluation at the quick size, on small files of the published formats."""

import json
import os
import pathlib
import subprocess
import sys

import pytest
import rawfiles

from experiments import experiment, listing

ROOT = pathlib.Path(__file__).parents[2]
NAMES = [name for name in listing.names() if not name.startswith(("polydigits", "toy/", "linear_gaussian/"))]


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    root = tmp_path_factory.mktemp("raw")
    rawfiles.write(root, num_train=700, num_test=60)
    caches = {"JNF_DATA_DIR": str(root), "JNF_CACHE_DIR": str(tmp_path_factory.mktemp("cache"))}
    return {**os.environ, **caches, "XLA_FLAGS": "--xla_llvm_disable_expensive_passes=true"}


def run(settings, *arguments):
    command = [sys.executable, "-m", *map(str, arguments)]
    result = subprocess.run(command, cwd=ROOT, env=settings, capture_output=True, text=True, timeout=1200)
    assert result.returncode == 0, result.stdout + result.stderr


def test_there_is_an_experiment_of_each_kind():
    assert len(NAMES) == 8 * 3 + 2 * 13


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_experiment_runs_end_to_end_at_its_quick_size(name, settings, tmp_path):
    config = experiment.find(name, quick=True)
    shorten = []
    for stage in config.training:
        shorten += [
            f"--training.{stage}.num-steps",
            4,
            f"--training.{stage}.steps-per-call",
            2,
            f"--training.{stage}.batch-size",
            60,
        ]
    shorten += ["--classifiers.training.num-steps", 50]
    shorten += ["--model.sampler.num-warmup", 20] if hasattr(config.model, "sampler") else []
    workdir = tmp_path / "run"
    run(settings, "experiments.train", name, "--workdir", workdir, "--quick", *shorten)
    few = [
        "--num-observations",
        20,
        "--num-samples",
        2,
        "--num-prior",
        50,
        "--num-codes",
        0,
        "--num-likelihood",
        4,
        "--num-importance",
        5,
    ]
    run(settings, "experiments.evaluate", "--workdir", workdir, *few)
    result = json.loads((workdir / "evaluation.json").read_text())
    assert result["num_observations"] == 20
    num_modalities = len(result["classifier_accuracy"])
    assert set(result["coherence"]["by_size"]) == {str(size) for size in range(1, num_modalities)}
