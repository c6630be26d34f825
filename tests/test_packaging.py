"""What is built and installed: `python -m build`, `twine check`, `pip install` into a clean environment."""

import configparser
import email
import os
import pathlib
import shutil
import subprocess
import sys
import tarfile
import zipfile

import pytest

ROOT = pathlib.Path(__file__).parents[1]
SHORT = ["--data.num-train", "600", "--training.joint.num-steps", "20", "--training.experts.num-steps", "20"]


def run(*command, cwd):
    settings = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "XLA_FLAGS", "JAX_ENABLE_X64")}
    result = subprocess.run(list(map(str, command)), cwd=cwd, env=settings, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    return result.stdout


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    """The Python of a new environment."""
    folder = tmp_path_factory.mktemp("clean") / "venv"
    run(sys.executable, "-m", "venv", folder, cwd=folder.parent)
    return folder / "bin" / "python"


@pytest.fixture(scope="module")
def built(tmp_path_factory, clean):
    """Wheel and source distribution, made from what git has."""
    folder = tmp_path_factory.mktemp("built")
    files = run("git", "ls-files", "-z", cwd=ROOT).split("\0")[:-1]
    for name in files:
        (folder / "source" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / "source" / name)
    run(clean, "-m", "pip", "install", "--quiet", "build", "twine", cwd=folder)
    run(clean, "-m", "build", "--outdir", folder / "dist", folder / "source", cwd=folder)
    return folder / "dist"


@pytest.mark.slow
def test_twine_finds_nothing_wrong(built, clean):
    out = run(clean, "-m", "twine", "check", "--strict", *built.iterdir(), cwd=built)
    assert out.count("PASSED") == 2, out


@pytest.mark.slow
def test_the_wheel_holds_two_packages_and_no_top_level_experiments(built):
    (wheel,) = built.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"jnf_jax", "jnf_jax_experiments"}
    assert "jnf_jax/py.typed" in names
    assert "jnf_jax_experiments/experiments/configs/polydigits/jnf.py" in names
    for folder, target in (("jnf_jax", "jnf_jax"), ("experiments", "jnf_jax_experiments/experiments")):
        for path in (ROOT / folder).rglob("*.py"):
            if "benchmarks" not in path.parts:
                assert f"{target}/{path.relative_to(ROOT / folder)}" in names
    (source,) = built.glob("*.tar.gz")
    with tarfile.open(source) as archive:
        assert any(name.endswith("/experiments/train.py") for name in archive.getnames())


@pytest.mark.slow
def test_every_extra_is_declared(built):
    (wheel,) = built.glob("*.whl")
    archive = zipfile.ZipFile(wheel)
    (name,) = [name for name in archive.namelist() if name.endswith("METADATA")]
    metadata = email.message_from_bytes(archive.read(name))
    declared = configparser.ConfigParser()
    declared.read(ROOT / "setup.cfg")
    assert set(metadata.get_all("Provides-Extra")) == set(declared["options.extras_require"])


@pytest.mark.slow
def test_the_newest_versions_that_setup_cfg_allows_work_in_a_clean_environment(built, clean, tmp_path):
    """No pins: what distrax drags in, a nightly above all, must fit the rest. A stranger's `experiments` stays importable."""
    (wheel,) = built.glob("*.whl")
    run(clean, "-m", "pip", "install", "--quiet", wheel, cwd=tmp_path)
    run(clean, "-m", "pip", "check", cwd=tmp_path)
    (tmp_path / "stranger" / "experiments").mkdir(parents=True)
    (tmp_path / "stranger" / "experiments" / "__init__.py").write_text("STRANGER = True")
    run(clean, "-c", "import experiments, jnf_jax.models.jnf; assert experiments.STRANGER", cwd=tmp_path / "stranger")
    command = clean.parent / "jnf-jax"
    assert "polydigits/jnf" in run(command, "list", cwd=tmp_path).splitlines()
    run(command, "train", "linear_gaussian/jnf", "--workdir", "runs/a", *SHORT, cwd=tmp_path)
    run(command, "export", "--workdir", "runs/a", "--output", "shared", cwd=tmp_path)
    run(command, "sample", "--workdir", "shared", "--observe", "x0,x1", cwd=tmp_path)
    assert (tmp_path / "shared" / "samples" / "x0+x1.png").exists()
