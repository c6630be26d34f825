import functools
import json
import pathlib
import subprocess

import numpy as np
import pytest

from experiments import experiment, grid, sweep
from jnf_jax import specs
from jnf_jax.data import source


def arguments(tmp_path, **options):
    return grid.Arguments(**{"data": "polydigits", "runs": tmp_path, "betas": (1.0, 5.0), "rates": (1e-3,)} | options)


def test_every_point_is_trained_with_its_beta_and_rate_and_a_share_of_the_steps(tmp_path):
    steps = {stage: settings.num_steps for stage, settings in experiment.find("polydigits/jnf").training.items()}
    found = grid.points(arguments(tmp_path, share=0.25), "jnf")
    assert list(found) == ["beta_1_rate_0.001", "beta_5_rate_0.001"]
    train, measure = found["beta_5_rate_0.001"]
    value = lambda flag: train[train.index(flag) + 1]
    assert value("--model.beta") == "5.0"
    assert value("--training.joint.learning-rate") == "0.001"
    assert {stage: int(value(f"--training.{stage}.num-steps")) for stage in steps} == {s: n // 4 for s, n in steps.items()}
    assert measure[measure.index("--split") + 1] == "validation"
    train, _ = grid.points(arguments(tmp_path), "mmvae")["beta_1_rate_0.001"]
    assert "--training.vae.learning-rate" in train


def test_what_is_measured_is_not_measured_again(tmp_path):
    folder = tmp_path / "polydigits" / "grid" / "jnf" / "beta_1_rate_0.001"
    folder.mkdir(parents=True)
    for name, split, number in (("evaluation", "test", 2), ("evaluation_validation", "validation", 1)):
        (folder / f"{name}.json").write_text(json.dumps({"log_likelihood": {}, "split": split}))
        found = grid.points(arguments(tmp_path), "jnf")
        assert [len(commands) for commands in found.values()] == [number, 2]
        assert all(commands[0][0] == "train" for commands in found.values())  # it refuses other settings


def test_points_that_would_be_one_are_refused(tmp_path):
    with pytest.raises(ValueError, match="that differ in six digits"):
        grid.points(grid.Arguments(data="polydigits", betas=(1.0, 1.0000001), runs=tmp_path), "jnf")


def test_the_best_point_is_the_most_coherent_over_sizes():
    def of(*by_size):
        by_size = {str(size): value for size, value in enumerate(by_size, 1)}
        return {"coherence": {"by_size": by_size}, "joint_coherence": 0.1, "log_likelihood": {"all": -5.0}}

    found = grid.summary({"a": of(0.9, 0.2), "b": of(0.7, 0.6), "c": of(0.1, 1.0)})
    assert found["best"] == "b"
    assert found["by_point"]["b"]["coherence"] == pytest.approx(0.65)


def test_a_share_beyond_the_experiment_and_an_unknown_model_are_refused_before_anything_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(sweep, "run", lambda *commands: pytest.fail("it ran"))
    for words, message in (
        (["--share", "2"], r"--share in \(0, 1\], got 2.0"),
        (["--models", "jnf", "jmvea"], "did you mean 'polydigits/jmvae'"),
    ):
        monkeypatch.setattr("sys.argv", ["grid", "polydigits", "--runs", str(tmp_path), *words])
        with pytest.raises(ValueError, match=message):
            grid.main()


def test_a_point_that_does_not_train_costs_no_other(tmp_path, monkeypatch):
    base = tmp_path / "polydigits" / "grid" / "jnf"

    def run(train, *_):
        folder = pathlib.Path(train[train.index("--workdir") + 1])
        folder.mkdir(parents=True, exist_ok=True)
        if "beta_5" in folder.name:
            (folder / "failed").mkdir()
            raise subprocess.CalledProcessError(2, train)
        part = {"coherence": {"by_size": {"1": 0.5}}, "joint_coherence": 0.1, "log_likelihood": {"all": -5.0}}
        (folder / "evaluation_validation.json").write_text(json.dumps(part))

    monkeypatch.setattr(sweep, "run", run)
    words = ["grid", "polydigits", "--models", "jnf", "--betas", "5", "1", "--rates", "0.001", "--runs", str(tmp_path)]
    monkeypatch.setattr("sys.argv", words)
    assert grid.main() == 0
    found = json.loads((base / "grid.json").read_text())
    assert found["best"] == "beta_1_rate_0.001"
    assert found["by_point"]["beta_5_rate_0.001"] == {"failed": True}
    with pytest.raises(ValueError, match="a point of the grid that trains to its end, got none"):
        grid.summary({"a": {}, "b": {}})


def test_a_grid_that_is_stopped_or_fails_otherwise_ends(tmp_path, monkeypatch):
    def run(train, *_, code):
        folder = pathlib.Path(train[train.index("--workdir") + 1])
        (folder / "failed").mkdir(parents=True, exist_ok=True)
        if code != 130:
            (folder / "failed").rmdir()
        raise subprocess.CalledProcessError(code, train)

    monkeypatch.setattr("sys.argv", ["grid", "polydigits", "--models", "jnf", "--runs", str(tmp_path)])
    for code in (130, 1):
        monkeypatch.setattr(sweep, "run", functools.partial(run, code=code))
        with pytest.raises(subprocess.CalledProcessError):
            grid.main()


def test_data_without_labels_are_refused_before_anything_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(sweep, "run", lambda *commands: pytest.fail("it ran"))
    unlabelled = lambda data: {
        "validation": source.Source(specs={"x": specs.ModalitySpec(shape=(1,))}, arrays={"x": np.zeros((2, 1))})
    }
    monkeypatch.setattr(experiment, "Splits", unlabelled)
    monkeypatch.setattr("sys.argv", ["grid", "polydigits", "--models", "jnf", "--runs", str(tmp_path)])
    with pytest.raises(ValueError, match="Expected a labelled data set, for a grid is judged by coherence"):
        grid.main()


@pytest.mark.slow
def test_a_grid_is_trained_measured_and_kept(tmp_path, monkeypatch, capsys):
    words = ["linear_gaussian", "--models", "jnf", "--betas", "1", "--rates", "0.01", "0.00001", "--share", "0.2"]
    words += ["--runs", str(tmp_path / "runs"), "--results", str(tmp_path / "results")]
    monkeypatch.setattr("sys.argv", ["grid", *words])
    assert grid.main() == 0
    found = json.loads((tmp_path / "results" / "linear_gaussian" / "grid" / "jnf.json").read_text())
    assert found["best"] == "beta_1_rate_0.01"
    assert found["by_point"][found["best"]]["log_likelihood"] > found["by_point"]["beta_1_rate_1e-05"]["log_likelihood"] + 1
    run = tmp_path / "runs" / "linear_gaussian" / "grid" / "jnf" / found["best"]
    assert json.loads((run / "evaluation_validation.json").read_text())["split"] == "validation"
    assert "on validation data" in capsys.readouterr().out
