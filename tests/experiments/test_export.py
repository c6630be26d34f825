"""A run leaves as a folder to share, and the other commands read it."""

import json
import pathlib
import sys

import jax
import numpy as np
import pytest

from experiments import download, experiment, export, model_card, run_folder, sample
from jnf_jax.data import linear_gaussian
from jnf_jax.models import mvae
from jnf_jax.networks import mlp
from jnf_jax.training import files, fit, hub, stages, weights

CONFIG = experiment.Config(
    data=linear_gaussian.Config(num_train=100, num_validation=40, num_test=20),
    model=mvae.Config(latent_dim=2, network=mlp.Config(hidden=(4,))),
    training={"vae": fit.Config(num_steps=4, batch_size=20, steps_per_call=2, calls_per_validation=1)},
)
EVALUATION = {
    "num_observations": 30,
    "coherence": {"by_size": {"1": 0.8125, "2": 0.9}},
    "joint_coherence": 0.25,
    "subset_score": {"by_size": {"1": {"mean": -3.25, "standard_error": 0.5}}},
    "log_likelihood": {"all": -12.5, "all_standard_error": 0.25},
    "elbo": -13.0,
    "hmc": {"rhat_threshold": 1.5, "by_subset": {"x0+x1": {"share_below": 0.5}, "x0+x2": {"share_below": 1.0}}},
}


@pytest.fixture(autouse=True)
def as_in_a_process_of_its_own():
    with jax.enable_x64(False):
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("export") / "run"
    with jax.enable_x64(False):
        run_folder.create(workdir, CONFIG)
        model, data = experiment.build(CONFIG)
        stages.train(model, jax.random.key(0), data, settings=CONFIG.training, folder=workdir)
    files.write_json(workdir / "evaluation.json", EVALUATION)
    return workdir


@pytest.fixture(scope="module")
def shared(run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("export") / "shared"
    with jax.enable_x64(False):
        export.export(run, folder)
    return folder


def call(module, monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", [module.__name__, *map(str, arguments)])
    return module.main()


def test_the_folder_holds_the_known_files_and_no_others(shared):
    assert {path.name for path in shared.iterdir()} == set(hub.FILES)


def test_its_parameters_are_those_of_the_run(run, shared):
    model, params = weights.load(shared)
    expected = stages.load(model, run)
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), params, expected))
    assert run_folder.load(shared) == CONFIG


def test_pictures_are_those_of_the_run(run, shared, monkeypatch):
    for folder in (run, shared):
        assert call(sample, monkeypatch, "--workdir", folder, "--observe", "x1", "--num-samples", "2") == 0
    assert (shared / "samples/x1.png").read_bytes() == (run / "samples/x1.png").read_bytes()


def test_the_card_tells_metrics_data_versions_and_checksums(shared):
    card = (shared / model_card.NAME).read_text()
    for row in (
        "| coherence of what is generated from 1 modality | 0.812 |",
        "| score of posteriors given 1 modality, nats | -3.25 ± 0.50 |",
        "| share of observations whose chains have R-hat below 1.5 | 0.750 |",
        f"| `x1` | {linear_gaussian.build(CONFIG.data, 'test').specs['x1'].shape} | gaussian |",
        "| `data.num_train` | 100 |",
        f"| `model.safetensors` | `{files.sha256(shared / 'model.safetensors')}` |",
        f"| `config.json` | `{files.sha256(shared / 'config.json')}` |",
        f"| jax | {jax.__version__} |",
    ):
        assert row in card, row
    assert card.startswith("---\nlibrary_name: jnf_jax\n")


def test_what_was_not_measured_is_not_told():
    assert model_card.measured({}) == []
    assert [name for name, _ in model_card.measured({"elbo": -1.0})] == ["joint ELBO, nats"]


def test_a_folder_that_holds_something_is_not_written_to(run, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="Expected a new or an empty folder"):
        export.export(run, other)
    assert [path.name for path in other.iterdir()] == ["notes.txt"]


def test_the_same_run_may_be_exported_again_and_damage_leaves_nothing_behind(run, shared, tmp_path):
    before = (shared / weights.WEIGHTS).stat()
    export.export(run, shared)
    assert (shared / weights.WEIGHTS).stat() == before
    whole = (run / "evaluation.json").read_text()
    card = (shared / "README.md").read_text()
    try:
        (run / "evaluation.json").write_text(json.dumps(EVALUATION | {"joint_coherence": 0.5}))  # it was measured again
        export.export(run, shared)
        assert json.loads((shared / "evaluation.json").read_text())["joint_coherence"] == 0.5
        assert "0.250" in card
        assert "0.250" not in (shared / "README.md").read_text()
        (shared / "README.md").write_text(card + "Licence: mine.")
        (run / "evaluation.json").unlink()
        export.export(run, shared)  # what was measured in the folder stays, and so does a card that somebody edited
        assert json.loads((shared / "evaluation.json").read_text())["joint_coherence"] == 0.5
        assert (shared / "README.md").read_text() == card + "Licence: mine."
        (shared / "README.md").unlink()
        (run / "evaluation.json").write_text("[1]")
        with pytest.raises(files.DamagedError, match="holds no JSON object"):
            export.export(run, tmp_path / "new")
    finally:
        (run / "evaluation.json").write_text(whole)
    export.export(run, shared)
    assert (shared / "README.md").read_text() == card
    assert not list(tmp_path.iterdir())


def test_an_unfinished_run_is_not_exported(tmp_path):
    run_folder.create(tmp_path / "run", CONFIG)
    with pytest.raises(ValueError, match="Expected a finished stage 'vae'"):
        export.export(tmp_path / "run", tmp_path / "shared")
    assert not (tmp_path / "shared").exists()


def test_a_folder_that_cannot_be_made_is_named(run):
    with pytest.raises(ValueError, match="Expected a folder that can be written, got /proc/shared"):
        export.export(run, type(run)("/proc/shared"))


def test_push_and_download_go_by_the_hub(run, tmp_path, monkeypatch, capsys):
    pushed = {}

    def from_hub(repo, *, revision, folder):
        assert revision is None
        folder.mkdir()
        for path in pushed[repo].iterdir():
            (folder / path.name).write_bytes(path.read_bytes())
        return folder

    monkeypatch.setattr(hub, "push_to_hub", lambda folder, repo, *, private: pushed.update({repo: folder}) or "address")
    monkeypatch.setattr(hub, "from_hub", from_hub)
    call(export, monkeypatch, "--workdir", run, "--output", tmp_path / "a", "--push", "me/model")
    call(download, monkeypatch, "me/model", "--output", tmp_path / "b")
    assert "pushed: address" in capsys.readouterr().out
    np.testing.assert_array_equal(
        *[jax.tree.leaves(weights.load(tmp_path / name)[1])[0] for name in ("a", "b")],
    )
    assert json.loads((tmp_path / "b" / "evaluation.json").read_text()) == EVALUATION


def test_the_folder_one_is_in_can_be_written_to_and_others_stay(run, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    (tmp_path / "here.tmp").mkdir()  # somebody's own
    monkeypatch.chdir(tmp_path / "here")
    export.export(run, pathlib.Path())
    assert weights.found(tmp_path / "here")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["here", "here.tmp"]
