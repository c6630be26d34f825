import dataclasses
import json

import pytest

from experiments import experiment, sweep
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
    assert not experiment.stage_differences(gaussian, jnf, "joint")
    assert not experiment.stage_differences(shared, jnf, "joint")
    assert experiment.stage_differences(gaussian, jnf, "experts") == ["model.flow"]
    changed = dataclasses.replace(jnf, model=dataclasses.replace(jnf.model, beta=9.0))
    assert experiment.stage_differences(changed, jnf, "joint") == ["model.beta"]
    longer = {**jnf.training, "joint": dataclasses.replace(jnf.training["joint"], num_steps=7)}
    assert experiment.stage_differences(dataclasses.replace(jnf, training=longer), jnf, "joint") == ["training.joint.num_steps"]


def test_modalities_in_another_order_are_other_data():
    both = {"scan": specs.ModalitySpec(shape=(4,)), "blood": specs.ModalitySpec(shape=(2,))}
    first, other = (
        dataclasses.replace(experiment.find("polydigits/jnf"), data=arrays.Config(path="mine.npz", specs=order))
        for order in (both, dict(reversed(both.items())))
    )
    assert not experiment.stage_differences(first, first, "joint")
    assert experiment.stage_differences(first, other, "joint") == ["data.specs"]


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
