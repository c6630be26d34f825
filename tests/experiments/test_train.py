"""What `jnf-jax train --log` adds to a run."""

import dataclasses
import importlib
import json
import sys

import jax
import numpy as np
import pytest
import tfevents

from experiments import experiment, previews, run_folder, train
from jnf_jax import ModalitySpec, configs
from jnf_jax.data import arrays, linear_gaussian, source
from jnf_jax.models import jnf, mvae
from jnf_jax.networks import mlp
from jnf_jax.projectors import dcca
from jnf_jax.training import fit, loggers, stages, weights

CONFIG = experiment.Config(
    data=linear_gaussian.Config(num_train=100, num_validation=40, num_test=20),
    model=mvae.Config(latent_dim=2, network=mlp.Config(hidden=(4,))),
    training={"vae": fit.Config(num_steps=8, batch_size=20, steps_per_call=2, calls_per_validation=1)},
)


class KilledError(BaseException):
    """Ends a run after its metrics were written and before its state is saved."""


def test_curves_and_pictures_go_on_where_a_killed_run_was_and_change_nothing(tmp_path, monkeypatch):
    picture = loggers.TensorBoard.picture

    def dies(logger, stage, step, image):
        picture(logger, stage, step, image)
        if step == 4:
            raise KilledError

    with jax.enable_x64(False):
        with monkeypatch.context() as patch, pytest.raises(KilledError):
            patch.setattr(loggers.TensorBoard, "picture", dies)
            train.train(CONFIG, tmp_path / "logged", log=["tensorboard"])
        assert train.train(CONFIG, tmp_path / "logged", log=["tensorboard"]) == 0
        assert train.train(CONFIG, tmp_path / "plain") == 0
        model, _ = experiment.build(CONFIG)
        logged, plain = (stages.load(model, tmp_path / name) for name in ("logged", "plain"))
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), logged, plain))
    assert not (tmp_path / "plain" / "tensorboard").exists()
    rows = [json.loads(line) for line in (tmp_path / "logged" / "metrics.jsonl").read_text().splitlines()]
    curves = tfevents.shown(tmp_path / "logged" / "tensorboard" / "vae")
    for name in ("loss", "validation_loss", "gradient_norm"):
        assert curves[f"vae/{name}"] == [(row["step"], pytest.approx(row[name])) for row in rows]
    assert [row["step"] for row in rows] == [2, 4, 6, 8]
    assert [step for step, _ in curves["vae/pictures"]] == [2, 4, 6, 8]


def test_a_file_that_was_replaced_is_noticed(tmp_path):
    path = tmp_path / "mine.npz"
    specs = {"a": ModalitySpec(shape=(3,)), "b": ModalitySpec(shape=(2,))}

    def write(num, shift):
        rng = np.random.default_rng(0)
        np.savez(path, a=rng.normal(size=(num, 3)) + shift, b=rng.normal(size=(num, 2)))

    write(200, 0)
    config = dataclasses.replace(CONFIG, data=arrays.Config(path=str(path), specs=specs))
    assert train.train(config, tmp_path / "run") == 0
    for num, shift, message in ((220, 0, "data.train.examples: 160 -> 176"), (200, 5, "data.train.a.mean: ")):
        write(num, shift)
        with pytest.raises(ValueError, match=message):
            train.train(config, tmp_path / "run")
        model, data = experiment.build(config)
        with pytest.raises(ValueError, match=message):
            stages.load(model, tmp_path / "run", data=data)
        with pytest.raises(ValueError, match=message):
            train.train(config, tmp_path / "other", taken=(tmp_path / "run", None))
        assert not (tmp_path / "other").exists()


def test_a_logger_that_fails_is_told_nothing_more_and_the_run_goes_on(tmp_path, monkeypatch, capsys):
    told = []

    def fails(logger, report):
        told.append(report.step)
        if report.step == 4:
            raise OSError("no space")

    monkeypatch.setattr(loggers.TensorBoard, "write", fails)
    assert train.train(CONFIG, tmp_path / "run", log=["tensorboard"]) == 0
    assert told == [2, 4]
    assert "TensorBoard is told nothing more: OSError: no space" in "".join(capsys.readouterr())


def test_a_logger_that_does_not_start_ends_a_new_run_alone(tmp_path, monkeypatch, capsys):
    assert train.train(CONFIG, tmp_path / "run") == 0

    def fails(logger, folder, settings):
        raise OSError("no server")

    monkeypatch.setattr(loggers.TensorBoard, "__init__", fails)
    with pytest.raises(ValueError, match="a logger 'tensorboard' that starts, got OSError: no server"):
        train.train(CONFIG, tmp_path / "new", log=["tensorboard"])
    assert train.train(CONFIG, tmp_path / "run", log=["tensorboard"]) == 0
    assert "tensorboard is told nothing: OSError: no server" in "".join(capsys.readouterr())
    monkeypatch.setattr(loggers.TensorBoard, "__init__", lambda *a: json.loads("<html>"))  # of a proxy
    assert train.train(CONFIG, tmp_path / "run", log=["tensorboard"]) == 0


def test_a_picture_that_fails_costs_no_run(tmp_path, monkeypatch, capsys):
    def make(*arguments):
        def fails(params):
            raise RuntimeError("no font")

        return fails

    monkeypatch.setattr(previews, "make", make)
    assert train.train(CONFIG, tmp_path / "run", log=["tensorboard"]) == 0
    assert "no picture of stage vae: RuntimeError: no font" in "".join(capsys.readouterr())
    assert [step for step, _ in tfevents.shown(tmp_path / "run" / "tensorboard" / "vae")["vae/loss"]] == [2, 4, 6, 8]


@pytest.mark.parametrize("whole", [True, False])
def test_a_damaged_stage_of_another_run_is_taken_again(tmp_path, whole):
    first, second = tmp_path / "first", tmp_path / "second"
    taken = (first, ["vae"])
    assert train.train(CONFIG, first) == 0
    other = dataclasses.replace(CONFIG, seed=3)
    assert train.train(other, second, taken=taken) == 0
    damaged = max(
        (path for path in (second / "params" / "vae").rglob("*") if path.is_file()), key=lambda path: path.stat().st_size
    )
    content = bytearray(damaged.read_bytes())
    if whole:
        first.rename(tmp_path / "moved")  # all that is to be taken is here already
        assert train.train(other, second, taken=taken) == 0
        return
    content[len(content) // 2] ^= 1
    damaged.write_bytes(bytes(content))
    assert train.train(other, second, taken=taken) == 0
    model, _ = experiment.build(CONFIG)
    a, b = (stages.load(model, folder) for folder in (first, second))
    assert jax.tree.all(jax.tree.map(lambda x, y: bool((x == y).all()), a, b))


@pytest.mark.parametrize(
    ("flags", "told"), [([], "the same command continues"), (["--overwrite"], "without --overwrite continues")]
)
def test_how_a_stopped_run_goes_on_is_told(tmp_path, monkeypatch, flags, told):
    seen = []
    monkeypatch.setattr(train, "train", lambda *arguments, stop, **options: seen.append(stop.continuing) or 0)
    monkeypatch.setattr("sys.argv", ["train", "linear_gaussian/jnf", "--workdir", str(tmp_path / "run"), *flags])
    assert train.main() == 0
    assert told in seen[0]


def test_what_loggers_keep_goes_with_the_run(tmp_path):
    (tmp_path / "mine.txt").write_text("")
    for name in ("loggers.json", "mlflow.db"):
        (tmp_path / name).write_text("{}")
    for name in ("tensorboard", "wandb", "mlflow"):
        (tmp_path / name / "vae").mkdir(parents=True)
    (tmp_path / "config.json").write_text("?")
    run_folder.remove(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_what_is_no_runs_is_not_removed(tmp_path):
    names = ("params.yaml", "params_best.npz", "evaluation_notes.json", "README.md")
    for name in (*names, "evaluation.json"):
        (tmp_path / name).write_text("mine")
    with pytest.raises(
        ValueError, match=r"a run to remove, with config.json or environment.json, got .*evaluation.json without"
    ):
        train.train(CONFIG, tmp_path, overwrite=True)
    assert len(list(tmp_path.iterdir())) == 5
    (tmp_path / "environment.json").write_text("{}")
    run_folder.remove(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_of_shared_weights_is_not_trained_in(tmp_path, overwrite):
    for name in (weights.MODEL, weights.WEIGHTS, "config.json"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(ValueError, match="--workdir without shared weights"):
        train.train(CONFIG, tmp_path, overwrite=overwrite)
    assert len(list(tmp_path.iterdir())) == 3


def test_without_a_complete_example_there_is_no_picture():
    specs = {name: ModalitySpec(shape=(2,)) for name in "ab"}
    model = configs.build(mvae.Config(latent_dim=2, network=mlp.Config(hidden=(4,))), specs)
    rows = np.arange(6) % 2 == 0
    data = source.Source(specs=specs, arrays=dict.fromkeys("ab", np.zeros((6, 2))), masks={"a": rows, "b": ~rows})
    assert previews.make(model, data, "vae", jax.random.key(0)) is None
    data = source.Source(specs=specs, arrays=dict.fromkeys("ab", np.zeros((6, 2))), masks={"a": rows})
    picture = previews.make(model, data, "vae", jax.random.key(0))(model.init(jax.random.key(1)))
    assert picture.shape[1] > 3 * picture.shape[0]


def test_a_missing_package_is_told_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setitem(loggers._PACKAGES, "mlflow", "no_such_package")
    with pytest.raises(ValueError, match="Expected the package no_such_package"):
        train.train(CONFIG, tmp_path / "run", log=["mlflow"])
    assert not (tmp_path / "run").exists()


def test_pictures_show_what_is_learnt_by_then_and_take_no_chains():
    specs = {name: ModalitySpec(shape=(8,)) for name in "abc"}
    small = jnf.Config(latent_dim=2, network=mlp.Config(hidden=(4,)), joint_hidden=(4,), projector=dcca.Config(dim=2))
    model = configs.build(small, specs)
    assert previews.subsets_of(model, "projector") == []
    assert previews.subsets_of(model, "joint") == [("a", "b", "c")]
    assert previews.subsets_of(model, "experts") == [("a", "b", "c"), ("a",), ("b",), ("c",)]


def test_a_picture_has_a_block_for_the_data_and_for_every_subset():
    specs = {"a": ModalitySpec(shape=(4, 5, 3), support=(0.0, 1.0)), "b": ModalitySpec(shape=(2, 2), support=(0.0, 1.0))}
    model = configs.build(mvae.Config(latent_dim=2, network=mlp.Config(hidden=(4,))), specs)
    blocks = [{"a": np.full((3, 4, 5, 3), shade), "b": np.full((3, 2, 2), shade)} for shade in (0.0, 0.5)]
    image = previews._compose(model, blocks)
    assert image.shape == (2 * 60 - 4, 7 * 60 - 4, 3)
    assert (image[28, 28] == 0).all()
    assert np.abs(image[60:, 4 * 60 : 4 * 60 + 56] - 0.5).max() <= 1 / 255
    assert (image[:, 3 * 60 : 3 * 60 + 56] == 1).all()


def test_values_that_nobody_standardised_are_told(capsys, tmp_path):
    rng = np.random.default_rng(0)
    specs = {
        "raw": ModalitySpec(shape=(2,)),
        "fine": ModalitySpec(shape=(2,)),
        "scan": ModalitySpec(shape=(2,), support=(0.0, 255.0)),
    }
    data = {"raw": rng.normal(2.5e5, 1e4, (90, 2)), "fine": rng.normal(size=(90, 2)), "scan": rng.uniform(0, 255, (90, 2))}
    np.savez(tmp_path / "mine.npz", **data)
    config = dataclasses.replace(CONFIG, data=arrays.Config(path=str(tmp_path / "mine.npz"), specs=specs))
    with jax.enable_x64(False):
        train.train(config, tmp_path / "run")
    warnings = [line for line in "".join(capsys.readouterr()).splitlines() if line.startswith("warning")]
    assert len(warnings) == 1
    assert "'raw' are far from 0 (mean 2.5" in warnings[0]


def test_data_that_were_moved_are_found_at_their_new_place(tmp_path):
    specs = {"a": ModalitySpec(shape=(3,)), "b": ModalitySpec(shape=(2,))}
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "mine.npz", a=rng.normal(size=(200, 3)), b=rng.normal(size=(200, 2)))
    at = lambda path: dataclasses.replace(CONFIG, data=arrays.Config(path=str(path), specs=specs))
    folder, new = tmp_path / "run", tmp_path / "elsewhere.npz"
    with jax.enable_x64(False):
        train.train(at(tmp_path / "mine.npz"), folder)
        before = (folder / "metrics.jsonl").read_text()
        (tmp_path / "mine.npz").rename(new)
        assert train.train(at(new), folder) == 0
        assert (folder / "metrics.jsonl").read_text() == before  # nothing was trained again
        assert run_folder.load(folder).data.path == str(new)
        assert train.train(at(new), tmp_path / "other", taken=(folder, None)) == 0
        other = dataclasses.replace(at(new), data=dataclasses.replace(at(new).data, seed=3))
        with pytest.raises(ValueError, match=r"data\.seed: 0 -> 3"):
            train.train(other, folder)
        np.savez(tmp_path / "others.npz", a=rng.normal(size=(200, 3)) + 1, b=rng.normal(size=(200, 2)))
        with pytest.raises(ValueError, match=r"data\.train\.a\.mean"):
            train.train(at(tmp_path / "others.npz"), folder)
        assert run_folder.load(folder).data.path == str(new)  # what was refused changed nothing


def test_a_component_of_ones_own_is_a_module_that_is_named(tmp_path, monkeypatch):
    (tmp_path / "myflow.py").write_text(
        "from jnf_jax.networks import mlp\nimport dataclasses\n"
        "@dataclasses.dataclass(frozen=True, kw_only=True)\nclass Config(mlp.Config):\n    pass\n"
        "def build(config, spec):\n    return mlp.build(config, spec)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "myflow", raising=False)
    myflow = importlib.import_module("myflow")
    monkeypatch.setitem(sys.modules, "myflow", myflow)  # forgotten afterwards

    config = dataclasses.replace(CONFIG, model=dataclasses.replace(CONFIG.model, network=myflow.Config(hidden=(4,))))
    with pytest.raises(ValueError, match="got 'myflow:Config': put a component of your own into a module of its own"):
        train.train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    monkeypatch.setenv("JNF_MODULES", "other, myflow")
    with jax.enable_x64(False):
        assert train.train(config, tmp_path / "run") == 0
        assert run_folder.load(tmp_path / "run") == config
        model, _ = experiment.build(config)
        weights.save(tmp_path / "shared", stages.load(model, tmp_path / "run"), config=config.model, specs=model.specs)
        assert weights.load(tmp_path / "shared")[0].config == config.model
    monkeypatch.delenv("JNF_MODULES")
    with pytest.raises(ValueError, match="JNF_MODULES"):
        weights.load(tmp_path / "shared")


@pytest.mark.parametrize(
    ("name", "is_place"),
    [
        ("data.path", True), ("data.data.path", True), ("data.paths.rna", True), ("data.readers.table.path", True), ("data.resident", True),
        ("data.specs.path.scale", False), ("data.columns.path", False), ("data.layers.paths", False), ("data.seed", False), ("model.path", False),
    ],
)  # fmt: skip
def test_places_are_told_from_what_is_there(name, is_place):
    assert run_folder._is_a_place(name) == is_place
