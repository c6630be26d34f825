import json
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]


@pytest.mark.slow
def test_streamed_pictures_cost_no_memory_and_little_time(tmp_path):
    """A quarter of a gigabyte; `python -m experiments.benchmarks.streaming FOLDER` measures the whole 6 GB."""
    command = [
        sys.executable,
        "-m",
        "experiments.benchmarks.streaming",
        str(tmp_path),
        "--num-examples",
        "20000",
        "--turns",
        "4",
    ]
    found = json.loads(subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=3600).stdout)
    assert found["gigabytes"] > 0.24
    assert found["resident_gigabytes"] - found["resident_gigabytes_small"] < 0.1
    assert found["share_of_on_device"] > 0.6  # 0.9 on a machine of its own
