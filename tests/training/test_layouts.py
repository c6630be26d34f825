"""Eight devices against one, for every stage of every model, in processes of their own."""

import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import xla

ROOT = pathlib.Path(__file__).parents[2]


def run(path, layout, devices):
    command = [sys.executable, str(ROOT / "tests" / "training" / "layouts.py"), str(path), layout]
    environment = {
        **os.environ,
        "XLA_FLAGS": xla.flags(devices),
        "PYTHONPATH": os.pathsep.join(str(ROOT / folder) for folder in ("", "tests", "tests/laws")),
    }
    subprocess.run(command, cwd=ROOT, env=environment, check=True, timeout=7200)
    with np.load(path) as found:
        return dict(found)


def check_draws(found, expected, mean, deviation):
    """Two sets of at least 50 effective draws each, of 20 observations: pooled over them, means and deviations agree within 5 standard errors."""
    scale, num = expected[deviation], expected[mean].size
    squares = ((found[mean] - expected[mean]) / scale) ** 2  # 2 / ESS in expectation each
    assert squares.mean() < 2 / 50 * (1 + 5 * np.sqrt(2 / num)), mean
    ratio = found[deviation].mean() / scale.mean()
    assert abs(ratio - 1) < 5 * np.sqrt(2 / (2 * 50 * len(scale))), deviation


@pytest.mark.slow
def test_eight_devices_train_and_draw_what_one_does(tmp_path):
    one = run(tmp_path / "one.npz", "data=1", 1)
    assert len({name.rsplit(" ", 1)[0] for name in one if name.endswith("losses")}) > 10  # stages
    for layout in ("data=8", "data=4,fsdp=2"):
        eight = run(tmp_path / "eight.npz", layout, 8)
        assert set(eight) == set(one)
        for name, value in one.items():
            if "jnf" in name and name.endswith("2 mean of draws"):  # chains of other roundings part: they agree in law
                check_draws(eight, one, name, name.replace("mean", "deviation"))
            elif not ("jnf" in name and name.endswith("2 deviation of draws")):
                np.testing.assert_allclose(eight[name], value, rtol=1e-5, atol=1e-6, err_msg=f"{layout} {name}")
