import dataclasses
import json
import os
import subprocess
import sys
import time

import pytest
import scripts

from experiments import compare, evaluate, experiment, grid, listing, run_folder, sweep
from jnf_jax import specs
from jnf_jax.data import arrays


def commands(tmp_path, model, data="extended_polymnist", **options):
    arguments = sweep.Arguments(data=data, runs=tmp_path, **options)
    folder, shared = (tmp_path / data / name / "seed_3" for name in (model, "jnf"))
    return sweep.commands(arguments, model, 3, folder, shared), folder, shared


def test_the_first_model_trains_its_own_joint_stage_and_the_others_take_it(tmp_path):
    (train, *_), _, _ = commands(tmp_path, "jnf")
    assert "--init-from" not in train
    assert train[train.index("--seed") + 1] == "3"
    (train, *_), _, shared = commands(tmp_path, "jnf_cl", quick=True)
    assert train[train.index("--init-from") :] == ["--init-from", str(shared), "--init-stages", "joint"]
    assert "--quick" in train


def test_a_joint_stage_of_other_networks_is_not_taken(tmp_path):
    (train, *_), _, _ = commands(tmp_path, "jnf_cl")  # residual networks, where JNF has convolutions
    assert "--init-from" not in train
    (train, *_), _, _ = commands(tmp_path, "jnf_dcca")
    assert "--init-from" in train


def test_a_stage_is_another_runs_where_all_that_it_depends_on_agrees():
    gaussian, jnf, shared = (experiment.find(f"polydigits/{name}") for name in ("gaussian", "jnf", "jnf_cl"))
    assert not run_folder.stage_differences(gaussian, jnf, "joint")
    assert not run_folder.stage_differences(shared, jnf, "joint")
    assert run_folder.stage_differences(gaussian, jnf, "experts") == ["model.flow"]
    changed = dataclasses.replace(jnf, model=dataclasses.replace(jnf.model, beta=9.0))
    assert run_folder.stage_differences(changed, jnf, "joint") == ["model.beta"]
    longer = {**jnf.training, "joint": dataclasses.replace(jnf.training["joint"], num_steps=7)}
    assert run_folder.stage_differences(dataclasses.replace(jnf, training=longer), jnf, "joint") == ["training.joint.num_steps"]


def test_modalities_in_another_order_are_other_data():
    both = {"scan": specs.ModalitySpec(shape=(4,)), "blood": specs.ModalitySpec(shape=(2,))}
    first, other = (
        dataclasses.replace(experiment.find("polydigits/jnf"), data=arrays.Config(path="mine.npz", specs=order))
        for order in (both, dict(reversed(both.items())))
    )
    assert not run_folder.stage_differences(first, first, "joint")
    assert run_folder.stage_differences(first, other, "joint") == ["data.specs"]


def test_what_is_measured_is_not_measured_again(tmp_path):
    first, folder, _ = commands(tmp_path, "jnf", evaluate="--num-observations 7")
    assert [command[0] for command in first] == ["train", "evaluate", "figures"]
    assert first[1][-2:] == ["--num-observations", "7"]
    folder.mkdir(parents=True)
    (folder / "evaluation.json").write_text('{"hmc": {"long_chains": {}}}')
    assert [command[0] for command in commands(tmp_path, "jnf")[0]] == ["train", "evaluate", "figures"]
    (folder / "evaluation.json").write_text('{"log_likelihood": {}}')
    assert [command[0] for command in commands(tmp_path, "jnf")[0]] == ["train", "figures"]
    (folder / "figures").mkdir()
    (folder / "figures" / "any_to_any.png").write_bytes(b"")
    assert [command[0] for command in commands(tmp_path, "jnf")[0]] == ["train"]
    measured = {"log_likelihood": {}, "split": "test", "num_samples": 4, "seed": 0, "subsets": "all"}
    (folder / "evaluation.json").write_text(json.dumps(measured))
    os.utime(folder / "figures" / "any_to_any.png", (0, 0))  # drawn before it was measured again
    assert [command[0] for command in commands(tmp_path, "jnf", evaluate="--num-samples 4")[0]] == ["train", "figures"]
    again, *_ = commands(tmp_path, "jnf", evaluate="--num-samples 3")  # one of the pictures shows what was measured
    assert [command[0] for command in again] == ["train", "evaluate", "figures"]


def test_what_was_measured_with_other_settings_is_measured_again(tmp_path):
    _, folder, _ = commands(tmp_path, "jnf")
    folder.mkdir(parents=True)
    verbs = lambda text: [command[0] for command in commands(tmp_path, "jnf", evaluate=text)[0]]
    done, todo = ["train", "figures"], ["train", "evaluate", "figures"]
    old = {"log_likelihood": {}, "split": "test", "num_samples": 4, "seed": 0, "subsets": "all"}
    (folder / "evaluation.json").write_text(json.dumps(old))
    assert verbs("--num-samples 4") == done
    assert verbs("--num-samples 2") == verbs("--num-samples 4 --subsets sizes:2") == todo
    assert verbs("--num-samples 4 --inception fid.npz") == todo  # there is no FID
    asked = evaluate._asked(sweep.parse_evaluate("--num-samples 4 --num-importance 10"))
    (folder / "evaluation.json").write_text(json.dumps(old | {"asked": asked}))
    assert verbs("--num-samples 4 --num-importance 10 --batch-size 7") == done
    assert verbs("--num-samples 4 --num-importance 20") == todo


def test_a_run_that_trained_its_joint_stage_keeps_it(tmp_path):
    (train, *_), folder, _ = commands(tmp_path, "jnf_cl", quick=True)
    assert "--init-from" in train
    (folder / "params" / "joint").mkdir(parents=True)
    (train, *_), _, _ = commands(tmp_path, "jnf_cl", quick=True)
    assert "--init-from" not in train
    (folder / "taken.json").write_text("{}")  # it is the first one's
    (train, *_), _, _ = commands(tmp_path, "jnf_cl", quick=True)
    assert "--init-from" in train


_CHILD = """
import pathlib, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: (pathlib.Path(sys.argv[1], "saved").touch(), sys.exit(130)))
pathlib.Path(sys.argv[1], "ready").touch()
time.sleep(60)
"""
_PARENT = """
import sys
from experiments import experiment, sweep
sweep.subprocess.Popen = lambda command, of=sweep.subprocess.Popen, **options: of([sys.executable, "-c", sys.argv[1], sys.argv[2]])
experiment.main(lambda: sweep.run(["train"], ["evaluate"]))
"""


def test_sigterm_reaches_what_runs_and_is_waited_for(tmp_path):
    parent = subprocess.Popen(
        [sys.executable, "-c", _PARENT, _CHILD, str(tmp_path)],
        cwd=scripts.ROOT,
        env=scripts.environment(),
        stdout=subprocess.PIPE,
    )
    for _ in range(600):
        if (tmp_path / "ready").exists():
            break
        time.sleep(0.1)
    parent.terminate()
    out, _ = parent.communicate(timeout=60)
    assert parent.returncode == 130
    assert (tmp_path / "saved").exists()
    assert out.split() == [b"train"]  # nothing is begun after it


def test_a_measurement_of_validation_data_is_none_of_test_data(tmp_path):
    folder = commands(tmp_path, "jnf")[1]
    folder.mkdir(parents=True)
    todo, done = ["train", "evaluate", "figures"], ["train", "figures"]
    for name, split, verbs in (
        ("evaluation_validation", "validation", todo),
        ("evaluation", "validation", todo),  # as earlier versions wrote it
        ("evaluation", "test", done),
    ):
        (folder / f"{name}.json").write_text(json.dumps({"log_likelihood": {}, "split": split}))
        assert [command[0] for command in commands(tmp_path, "jnf")[0]] == verbs


def test_results_are_copies_of_config_and_evaluation(tmp_path):
    (tmp_path / "run").mkdir()
    for name in ("config.json", "evaluation.json", "metrics.jsonl"):
        (tmp_path / "run" / name).write_text(name)
    sweep.keep(tmp_path / "run", tmp_path / "kept" / "seed_0")
    assert {p.name for p in (tmp_path / "kept" / "seed_0").iterdir()} == {"config.json", "evaluation.json"}


def test_what_evaluate_does_not_take_is_said_before_the_first_run(capsys):
    with pytest.raises(SystemExit) as ended:
        sweep.check(sweep.Arguments(data="polydigits", evaluate="--num-observatoins 5"))
    assert ended.value.code == 2
    assert "num-observatoins" in capsys.readouterr().err
    with pytest.raises(ValueError, match="Expected a model and a seed"):
        sweep.check(sweep.Arguments(data="polydigits", seeds=()))
    sweep.check(sweep.Arguments(data="polydigits"))


def test_a_failed_command_ends_the_sweep_with_its_code(monkeypatch):
    def fail():
        sweep.run(["no-such-verb"])

    with pytest.raises(SystemExit) as ended:
        experiment.main(fail)
    assert ended.value.code == 2


def test_every_benchmark_has_three_models_and_a_quick_size():
    for data in ("mnist_svhn", "polymnist", "translated_polymnist", "mhd"):
        for model in sweep.Arguments(data=data).models:
            config, quick = (experiment.find(f"{data}/{model}", quick=q) for q in (False, True))
            likelihood = {name: getattr(config.data, name) for name in ("likelihood", "scale") if hasattr(config.data, name)}
            assert dataclasses.replace(quick.data, **likelihood) == config.data
            assert quick.training["joint"].num_steps < config.training["joint"].num_steps
            assert set(quick.training) == set(config.training)


def test_a_folder_of_experiment_files_is_a_data_set(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    for name in ("jnf", "other", "_parts"):
        (tmp_path / "mine" / f"{name}.py").write_text("from experiments.configs.linear_gaussian.jnf import CONFIG")
    assert listing.models_of("mine") == ["jnf", "other"]
    assert compare.models_of("mine") == sweep.Arguments(data="mine").models == ("jnf", "other")
    assert grid.Arguments(data="mine").models == ("jnf", "other")
    assert sweep.Arguments(data="polydigits").models == sweep.MODELS
    arguments = sweep.Arguments(data=str(tmp_path / "mine"), models=("jnf", "other"), runs=tmp_path / "runs")
    sweep.check(arguments)
    folder, shared = tmp_path / "runs" / "mine" / "other" / "seed_0", tmp_path / "runs" / "mine" / "jnf" / "seed_0"
    (train, *_) = sweep.commands(arguments, "other", 0, folder, shared)
    assert train[:2] == ["train", str(tmp_path / "mine" / "other.py")]
    assert train[train.index("--init-from") + 1] == str(shared)
    ran = []
    monkeypatch.setattr(sweep, "run", lambda *commands, with_parent: ran.append(commands))
    assert sweep.finish(arguments, "other", 0) == folder
    with pytest.raises(ValueError, match=r"a folder of experiment files, one a model, got the file 'mine/jnf\.py'"):
        sweep.check(sweep.Arguments(data="mine/jnf.py"))
    assert listing.of("polydigits", "jnf") == "polydigits/jnf"
    (tmp_path / "polydigits").symlink_to(tmp_path / "mine")  # a data set's name comes first
    assert listing.called("polydigits") == "polydigits"
    assert listing.of("polydigits", "jnf") == "polydigits/jnf"


@pytest.mark.parametrize("text", ["--split validation", "--chains-only"])
def test_what_a_table_does_not_hold_is_not_asked_of_every_run(text):
    with pytest.raises(ValueError, match="--evaluate with the whole test split"):
        sweep.check(sweep.Arguments(data="linear_gaussian", models=("jnf",), evaluate=text))
