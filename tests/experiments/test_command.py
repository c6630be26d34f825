"""The command `jnf-jax`, away from the clone."""

import subprocess
import sys

import pytest
from scripts import ROOT, command, environment


def test_the_command_lists_its_verbs_and_the_experiments(tmp_path):
    out = command(cwd=tmp_path).stdout
    for verb in ("train", "evaluate", "sample", "figures", "report", "sweep", "inference-gap", "list"):
        assert f"  {verb} " in out
    assert "settings" not in out
    assert "polydigits/jnf" in command("list", cwd=tmp_path).stdout.splitlines()
    wrong = command("trian", cwd=tmp_path)
    assert wrong.returncode == 2
    assert "Did you mean 'train'?" in wrong.stderr


def test_a_list_takes_no_time():
    code = "import sys; import jnf_jax_experiments.__main__ as m; sys.argv[1:] = ['list']; m.main(); assert 'jax' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment(), check=True, capture_output=True)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("import nonsense", "ModuleNotFoundError at mine.py:1: No module named 'nonsense'"),
        ("\nCONFIG = = 3", "SyntaxError at mine.py:2"),
        ("import json\n\nCONFIG = json.loads('\\n\\n\\n\\n?')", "JSONDecodeError at mine.py:3"),
        ("def f():\n    return 1 / 0\n\n\nCONFIG = f()", "ZeroDivisionError at mine.py:2"),
    ],
)
def test_a_file_that_does_not_run_is_one_clear_line(tmp_path, monkeypatch, content, message):
    from experiments import experiment

    (tmp_path / "mine.py").write_text(content)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=f"Expected an experiment file that runs, got {message}"):
        experiment.find("mine.py")


def test_a_file_that_is_not_there_or_has_no_config_is_named(tmp_path, monkeypatch):
    from experiments import experiment

    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"got no file at 'other.py'"):
        experiment.find("other.py")
    (tmp_path / "empty.py").write_text("")
    with pytest.raises(ValueError, match="exports CONFIG"):
        experiment.find("empty.py")


def test_a_config_anywhere_is_trained_and_read_back(tmp_path):
    import numpy as np

    from experiments import run_folder

    rng = np.random.default_rng(0)
    np.savez(tmp_path / "mine.npz", a=rng.normal(size=(200, 4)), b=rng.normal(size=(200, 3)))
    (tmp_path / "mine.py").write_text(OWN)
    result = command("train", tmp_path / "mine.py", "--workdir", "run", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    config = run_folder.load(tmp_path / "run")
    assert config.data.specs["b"].shape == (3,)
    assert command("sample", "--workdir", "run", "--observe", "a", cwd=tmp_path).returncode == 0


OWN = """
from experiments import experiment
from jnf_jax import ModalitySpec
from jnf_jax.data import arrays
from jnf_jax.models import jnf
from jnf_jax.networks import mlp
from jnf_jax.training import fit

short = fit.Config(num_steps=20, batch_size=16, steps_per_call=10)
CONFIG = experiment.Config(
    data=arrays.Config(path="mine.npz", specs={"a": ModalitySpec(shape=(4,)), "b": ModalitySpec(shape=(3,))}),
    model=jnf.Config(latent_dim=2, network=mlp.Config(hidden=(8,))),
    training={"joint": short, "experts": short},
)
"""


def test_a_reader_that_goes_away_is_no_error(tmp_path):
    pipe = subprocess.Popen(
        [sys.executable, "-m", "jnf_jax_experiments", "list"],
        cwd=ROOT, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    pipe.stdout.close()
    assert pipe.stderr.read() == ""
    assert pipe.wait() == 1
