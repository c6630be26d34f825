"""What is measured of a finished run, through the command line."""

import dataclasses
import json
import pathlib

import pytest
from scripts import run, run_together


def test_chains_too_short_for_a_diagnosis_say_nothing():
    import numpy as np

    from experiments import evaluate, tables
    from jnf_jax import types

    values = {"acceptance": 0.8, "divergences": 0, "improper": False, "rhat": np.nan, "ess": np.nan}
    info = types.Info(*(np.full(5, values.get(field, 0.1)) for field in types.Info._fields))
    summary = evaluate.chain_summary(info, 1.5)
    assert summary["share_below"] is None
    assert summary["untrusted"]["rhat"] == []
    assert tables.number(summary["rhat_largest"], ".3f") == "-"
    told = evaluate.chain_summary(info._replace(rhat=np.array([1.0, 1.2, 2.0, np.nan, 1.0])), 1.5)
    assert told["share_below"] == pytest.approx(0.6)
    assert told["untrusted"]["rhat"] == [2, 3]
    assert told["ess_median"] is None


def test_the_table_of_chains_fits_a_terminal_of_80_columns(monkeypatch, capsys):
    from experiments import tables

    monkeypatch.setenv("COLUMNS", "80")
    summary = {"acceptance": 0.8, "divergences": 12, "rhat_median": 1.0, "rhat_largest": 11.25, "share_below": 0.5,
               "ess_median": 1234, "improper": 1, "untrusted": {"rhat": [3], "divergent": [1, 2]}}  # fmt: skip
    tables.show({"hmc": {"rhat_threshold": 1.01, "by_subset": {"m0+m1+m2": summary}}})
    lines = capsys.readouterr().out.splitlines()
    heading = next(line for line in lines if "given" in line)
    assert all(name in heading for name in ("accepted", "diverged", "R-hat", "largest", "< 1.01", "ESS", "improper"))
    assert "warning: given m0+m1+m2, do not trust 1 observation (rhat): number 3" in lines
    assert "warning: given m0+m1+m2, do not trust 2 observations (divergent): number 1, 2" in lines


def test_what_needs_no_labels_is_shown_without_them(capsys):
    from experiments import tables

    score = {"by_size": {"2": {"mean": -3.25, "standard_error": 0.5}}}
    fid = {"modality": "scan", "num_generated": 30, "num_real": 40, "by_size": {"1": 61.5}}
    tables.show({"subset_score": score, "reconstruction": {"scan": {"mean_squared_error": 0.1234}}, "fid": fid})
    out = capsys.readouterr().out
    assert all(text in out for text in ("-3.25 ± 0.50", "0.1234", "61.5"))


def test_one_observation_has_no_standard_error_and_is_refused():
    from experiments import evaluate, experiment

    test = experiment.Splits(experiment.find("linear_gaussian/jnf").data)["test"]
    with pytest.raises(ValueError, match=r"at least 2 observations, got .*of 1 complete test examples"):
        evaluate._check_enough(evaluate.Arguments(workdir="runs/any"), test.take(1))
    for name in ("num_observations", "num_likelihood", "num_scored"):
        with pytest.raises(ValueError, match=f"at least 2 observations, got .*'{name}': 1[,}}]"):
            evaluate._check_enough(evaluate.Arguments(workdir="runs/any", **{name: 1}), test)
    evaluate._check_enough(evaluate.Arguments(workdir="runs/any", num_observations=2, num_likelihood=2, num_scored=0), test)
    one = evaluate.Arguments(workdir="runs/any", num_observations=1)
    with pytest.raises(ValueError, match="at least 2 observations"):  # before a run is looked for
        evaluate.evaluate(one, experiment.find("linear_gaussian/jnf"), parts_path=None)


def test_evaluate_sample_and_figures(whole):
    small = ["--num-observations", "30", "--num-prior", "50", "--num-likelihood", "10", "--num-importance", "20",
             "--batch-size", "20", "--num-codes", "100", "--num-scored", "10"]  # fmt: skip
    out = run("evaluate", "--workdir", whole, *small).stdout
    assert "Coherence by subset size" in out
    result = json.loads((whole / "evaluation.json").read_text())
    assert set(result["classifier_accuracy"]) == {"x0", "x1", "x2"}
    assert set(result["coherence"]["by_size"]) == {"1", "2"}
    assert set(result["coherence"]["by_subset"]["x0+x2"]) == {"x1"}
    assert 0 <= result["joint_coherence"] <= 1
    assert set(result["joint_coherence_by_density"]) == {"prior", "mixture"}
    assert set(result["frechet"]["distance"]["by_subset"]["x0+x2"]) == {"x1"}
    assert result["frechet"]["num_generated"] == 30
    assert set(result["reconstruction"]["x1"]) == {"mean_squared_error"}  # no image has no structural similarity
    assert 0 < result["cluster_accuracy"] <= 1
    values = result["log_likelihood"]
    assert {"all", "x0", "x1", "x2", "rest given x0"} <= set(values)
    assert values["rest given x0"] == pytest.approx(values["all"] - values["x0"])
    assert result["elbo"] < 0
    assert set(result["hmc"]["by_subset"]) == {"x0+x1", "x0+x2", "x1+x2"}
    assert result["diversity"]["mean"] > 0
    assert set(result["subset_score"]["by_size"]) == {"1", "2"}
    assert result["subset_score"]["by_subset"]["x0+x2"]["standard_error"] > 0
    few = ["--subsets", "sizes:1", "--num-observations", "5", "--num-scored", "0", "--num-codes", "0"]
    run_together(
        ("evaluate", "--workdir", whole, *small, "--split", "validation", *few),
        ("inference_gap", "--workdir", whole, "--num-observations", "5", "--num-points", "41", "--num-partners", "5"),
        ("sample", "--workdir", whole, "--observe", "x0,x2", "--num-samples", "3"),
    )
    validated = json.loads((whole / "evaluation_validation.json").read_text())
    assert validated["split"] == "validation"
    assert validated["elbo"] != result["elbo"]
    assert json.loads((whole / "evaluation.json").read_text()) == result
    gap = json.loads((whole / "inference_gap.json").read_text())["by_subset"]
    assert {"mean", "standard_error", "values", "floor"} <= set(gap["x0+x2"])
    assert (whole / "samples" / "x0+x2.png").stat().st_size > 1000
    run_together(
        ("evaluate", "--workdir", whole, "--chains-only", "--chain-observations", "5", "--chain-draws", "50"),
        ("figures", "--workdir", whole, "--num-latent", "30", "--num-traced", "2"),
        ("report", whole, "--output", whole / "report.html"),
    )
    long = json.loads((whole / "evaluation.json").read_text())["hmc"]["long_chains"]
    assert long["num_draws"] == 50
    assert long["by_subset"]["x0+x1"]["share_below"] <= 1
    assert set(long["by_subset"]) == {"x0+x1", "x0+x2", "x1+x2"}
    assert "data:image/png" in (whole / "report.html").read_text()
    pictures = {p.name for p in (whole / "figures").iterdir()}
    assert pictures == {"losses.png", "any_to_any.png", "latent_space.png", "coherence.png", "chains.png"}


def test_long_chains_already_run_are_taken_over(whole, monkeypatch):
    import jax

    from experiments import evaluate, run_folder

    arguments = evaluate.Arguments(workdir=whole, chain_observations=5, chain_draws=50)
    config = run_folder.load(whole)
    drawn = []
    with jax.enable_x64(False):  # as the run was trained
        first = next(evaluate.long_chains(arguments, config, {}))
        assert list(first["by_subset"]) == ["x0+x1"]
        monkeypatch.setattr(evaluate.coherence, "draw", lambda *a, **o: drawn.append(a[4]) or pytest.fail("stop"))
        with pytest.raises(pytest.fail.Exception):
            list(evaluate.long_chains(arguments, config, first))
        with pytest.raises(pytest.fail.Exception):  # another question: everything is drawn again
            list(evaluate.long_chains(dataclasses.replace(arguments, chain_draws=60), config, first))
    assert drawn == [("x0", "x2"), ("x0", "x1")]


def test_ways_to_multiply_experts_are_compared(whole, tmp_path):
    small = ["--num-observations", "30", "--num-scored", "40", "--num-chained", "5", "--chain-draws", "50",
             "--num-prior", "50", "--subsets", "sizes:2", "--results", tmp_path]  # fmt: skip
    out = run("product_gap", "--workdir", whole, "--arms", "published", "default", "direct", *small).stdout
    assert "Products of experts, by size of the subset" in out
    for arm in ("published", "default"):
        (kept,) = tmp_path.rglob(f"{arm}/seed_0.json")
        result = json.loads(kept.read_text())
        assert result == json.loads((whole / "product_gap" / f"{arm}.json").read_text())
        assert set(result["score"]["by_size"]["2"]) == {"mean", "standard_error", "values"}
        assert len(result["gap"]["by_size"]["2"]["values"]) == 30  # no more can be scored than are observed
        assert set(result["by_subset"]) == {"x0+x1", "x1+x2"}
    direct = json.loads((whole / "product_gap" / "direct.json").read_text())
    assert set(direct["score"]["by_size"]) == {"2"}
    assert direct["gap"]["by_size"]["2"]["mean"] == pytest.approx(0, abs=1e-3)  # its scores are computed in another program
    wrong = run("product_gap", "--workdir", whole, "--arms", "publish", check=False)
    assert wrong.returncode == 2
    assert "Expected arms of" in wrong.stderr
    run("product_gap", "--workdir", whole, "--arms", "direct", "--seed", "1", *small)  # with the direct experts that are there
    assert json.loads((whole / "product_gap" / "direct.json").read_text())["by_subset"] != direct["by_subset"]


def test_results_have_the_names_of_the_folder(tmp_path):
    from experiments import product_gap

    for words, names in (
        ("polydigits/jnf/seed_0", ("polydigits", "jnf")),
        ("runs/jnf", ("runs", "jnf")),
        ("runs/jnf_cl", ("runs", "jnf_cl")),
    ):
        assert product_gap._names(tmp_path / words) == names
    assert product_gap._names(pathlib.Path("/a")) == ("runs", "a")


def test_an_evaluation_takes_over_what_belongs_to_its_weights_alone():
    from experiments import evaluate

    def taken(known, split="test"):
        result = {"weights": "new", "split": split, "hmc": {}}
        evaluate._take_over(result, known)
        return set(result["hmc"]) | set(result) - {"weights", "split", "hmc"}

    whole = {"fid": {}, "hmc": {"long_chains": {}}}
    assert taken(whole | {"weights": "new"}) == taken(whole) == {"fid", "long_chains"}
    assert taken(whole | {"weights": "old"}) == taken({}) == set()
    assert taken({"hmc": {"long_chains": {"weights": "old"}}}) == set()  # written before any evaluation
    assert taken({"hmc": {"long_chains": {"weights": "new"}}}) == {"long_chains"}
    assert taken(whole | {"weights": "new"}, "validation") == {"long_chains"}
