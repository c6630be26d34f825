import json

import pytest

from experiments import compare, experiment, report, sweep
from jnf_jax import configs


def fake(folder, config, coherence):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(configs.to_json(config)))
    evaluation = {
        "num_observations": 20,
        "coherence": {"by_size": {"1": coherence, "2": coherence}, "by_subset": {}},
        "frechet": {"features": "f", "num_generated": 20, "num_real": 30, "distance": {"by_size": {"1": 9.0, "2": 8.0}}},
        "hmc": {"by_subset": {}, "rhat_threshold": 1.5},
        "log_likelihood": {"all": -5.0},
    }
    (folder / "evaluation.json").write_text(json.dumps(evaluation))


def test_every_data_set_to_compare_on_has_every_model():
    for data in ("polydigits", "extended_polymnist", "mhd_standin"):
        for model in compare.MODELS:
            name = f"{data}/{model}"
            config = experiment.find(name, quick=data != "polydigits")
            assert configs.from_json(configs.to_json(config)) == config


def test_without_names_the_models_are_those_that_a_data_set_has():
    assert compare.models_of("polydigits") == compare.MODELS
    assert compare.models_of("toy") == ("jnf", "jnf_cl", "jnf_dcca")
    assert set(compare.models_of("polydigits_missing_20")) == {"jnf", "mvae", "mmvae", "mopoe", "mvtcae"}
    assert compare.models_of("nowhere") == compare.MODELS  # to be refused by name


def test_baselines_have_the_networks_and_the_budget_of_jnf():
    ours = experiment.find("polydigits/jnf")
    for model in compare.MODELS[3:]:
        theirs = experiment.find(f"polydigits/{model}")
        assert theirs.model.network == ours.model.network
        dims = theirs.model.latent_dim + getattr(theirs.model, "private_dim", 0)
        assert dims == ours.model.latent_dim
        assert sum(t.num_steps for t in theirs.training.values()) == sum(t.num_steps for t in ours.training.values())


def test_a_model_has_one_colour_in_both_panels_and_every_count_is_told(tmp_path):
    folders = [tmp_path / model for model in ("mvae", "mmvae", "jmvae")]
    for folder in folders:
        fake(folder, experiment.find(f"polydigits/{folder.name}"), 0.5)
    for folder, change in ((folders[0], {"frechet": None}), (folders[2], {"num_generated": 1_000})):
        found = json.loads((folder / "evaluation.json").read_text())
        found.update({key: value for key, value in change.items() if value is None})
        found = {key: value for key, value in found.items() if value is not None}
        found.get("frechet", {}).update({key: value for key, value in change.items() if value is not None})
        (folder / "evaluation.json").write_text(json.dumps(found))
    groups = report.grouped([report.load(folder) for folder in folders])
    left, right = compare.draw(groups).axes
    colours = {c.get_label(): c.lines[0].get_color() for c in left.containers}
    drawn = {line.get_label(): line.get_color() for line in right.lines if len(line.get_xdata())}
    assert len(drawn) == 2
    assert drawn == {label: colours[label] for label in drawn}
    assert "20 generated, 30 real or features of f; 1000 generated, 30 real" in report.page(groups)


def test_what_is_finished_is_shown_after_each_run(tmp_path, monkeypatch):
    rows = []

    def finish(arguments, model, seed):
        config = experiment.find(f"polydigits/{model}")
        fake(tmp_path / "polydigits" / model / f"seed_{seed}", config, 0.5)
        rows.append((model, seed))

    monkeypatch.setattr(sweep, "finish", finish)
    argv = ["compare", "polydigits", "--models", "mvae", "mmvae", "--seeds", "0", "--runs", str(tmp_path)]
    monkeypatch.setattr("sys.argv", argv)
    (tmp_path / "polydigits" / "mmvae" / "seed_0").mkdir(parents=True)
    (tmp_path / "polydigits" / "mmvae" / "seed_0" / "evaluation.json").write_text(
        '{"hmc": {"long_chains": {}}}'
    )  # no whole one
    assert compare.main() == 0
    assert rows == [("mvae", 0), ("mmvae", 0)]
    table = (tmp_path / "polydigits" / "comparison.md").read_text().splitlines()
    assert [line.split("|")[1].strip() for line in table[2:]] == ["polydigits/mvae", "polydigits/mmvae"]
    for suffix in ("png", "html"):
        assert (tmp_path / "polydigits" / f"comparison.{suffix}").stat().st_size > 1_000
    monkeypatch.setattr("sys.argv", [*argv, "--models", "nothing"])
    with pytest.raises(ValueError, match=r"got 'polydigits/nothing'"):
        compare.main()
