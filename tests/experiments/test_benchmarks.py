import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scripts

from experiments.benchmarks import accelerator, effective, ours, run, settings, targets
from jnf_jax import configs, types
from jnf_jax.flows import identity
from jnf_jax.models import jnf
from jnf_jax.posteriors import flow as expert
from jnf_jax.posteriors import product

RESULTS = json.loads((run.Arguments().output).read_text())


@pytest.mark.parametrize("target", [name for name in settings.TARGETS if name.startswith("gaussian")])
def test_exact_moments_are_those_of_the_product(target):
    flow = identity.build(identity.Config(), settings.TARGETS[target][0])
    loc, scale = (jnp.asarray(values[0], jnp.float64) for values in targets.bases(target))
    mean, variance = (values[0] for values in targets.exact_moments(target))
    rule = product.Rule(kind="prior", flow=flow)
    density = lambda z: product.log_density(rule, product.Shared({}), types.Gaussian(loc, scale), z)
    np.testing.assert_allclose(jax.grad(density)(jnp.asarray(mean, jnp.float64)), 0, atol=1e-4)
    np.testing.assert_allclose(
        jax.hessian(density)(jnp.asarray(mean, jnp.float64)), -np.diag(1 / variance), rtol=1e-4, atol=1e-8
    )


def test_draws_of_the_wrong_law_are_seen():
    right = np.random.default_rng(0).normal(size=(200, 4, 5, 3))
    for scale, is_right in [(1.0, True), (1.2, False)]:
        square, error = effective.mean_square(scale * right, np.zeros((5, 3)), np.ones((5, 3)))
        assert (abs(square - 1) < 5 * error) == is_right


def test_draws_that_depend_on_one_another_count_for_less():
    rng = np.random.default_rng(0)
    chain, draws = rng.normal(size=(4, 2, 3)), []
    for _ in range(4_000):  # with a correlation of .9 a twentieth of the draws is effective, (1 - .9) / (1 + .9)
        chain = 0.9 * chain + np.sqrt(1 - 0.81) * rng.normal(size=chain.shape)
        draws.append(chain)
    draws = np.asarray(draws)
    found = effective.ess(draws)
    np.testing.assert_allclose(found, draws.shape[0] * 4 / 19, rtol=0.3)
    _, error = effective.mean_square(draws, np.zeros((2, 3)), np.ones((2, 3)))
    squares = 16_000 * 6 * (1 - 0.81) / (1 + 0.81)  # squares have the correlation .81
    assert error == pytest.approx(np.sqrt(2 / squares), rel=0.3)


def test_every_expert_of_a_row_with_trained_flows_has_learnt_what_its_flow_was_fitted_to():
    model, params = ours.build("mnist_svhn_mlp")
    held_out = jnp.asarray(targets.rotated(np.random.default_rng(0), 21_000, model.latent_dim)[20_000:])
    flow = configs.build(jnf.Config().flow, model.latent_dim)
    base = types.Gaussian(jnp.zeros(model.latent_dim), jnp.full(model.latent_dim, targets.BASE_SCALE))

    def fit(params, index):
        flow_params = jax.tree.map(lambda leaf: leaf[index], params["experts"]["flows"])
        return jax.vmap(lambda z: expert.log_density(flow, flow_params, base, z))(held_out).mean()

    trained = ours._with_trained_flows(model, params)
    for index in range(len(model.specs)):
        assert fit(trained, index) > fit(params, index) + 1


def test_a_ratio_above_one_says_that_we_are_ahead():
    assert run._row("a", "s", {"ours": 1.0, "theirs": 3.0}, lower_is_better=True)["ratio"] == 3
    assert run._row("a", "draws/s", {"ours": 1.0, "theirs": 4.0}, lower_is_better=False)["ratio"] == 0.25
    assert run._row("a", "s", {"ours": 1.0}, lower_is_better=True)["ratio"] is None


@pytest.mark.parametrize("name", ["train/polymnist_32/joint", "draws/polymnist_32/1", "subset/polymnist_32/2_default"])
def test_both_sides_have_the_same_to_do_before_their_first_result(monkeypatch, name):
    asked = []

    class Side:
        def __init__(self, python, side, row, **environment):
            self.side = side

        def ask(self, line):
            asked.append((self.side, int(line)))

        def close(self):
            pass

    monkeypatch.setattr(run, "Side", Side)
    row = next(row for row in settings.rows() if row.name == name)
    run._start("start", row, "python")
    theirs, ours = ({amount for one, amount in asked if one == side} for side in ("theirs", "ours"))
    if row.kind == "subset":  # iterations of their one chain, where our chains have lengths of their own
        assert theirs == {settings.ITERATIONS}
    else:
        assert ours == theirs
        assert len(asked) == 3 * 3 + 1


def test_the_committed_results_hold_every_row():
    names = {row["name"] for row in RESULTS["rows"]}
    assert {row.name for row in settings.rows()} <= names, "run `make bench` again"
    assert {name.split("/")[0] for name in names} == {"train", "draws", "subset", "ess", "start", "memory"}


def test_an_accelerator_is_measured_in_one_go_here_at_a_small_size(tmp_path):
    path = tmp_path / "accelerator.json"
    scripts.run("benchmarks.accelerator", "--small", "--output", path, "--only", "train/mnist_svhn_mlp/joint")
    result = json.loads(path.read_text())
    assert set(result["peaks"]) == {"float32", "bfloat16"}
    assert not result["left_out"]
    assert {(row["name"], row["precision"]) for row in result["rows"]} == {
        ("train/mnist_svhn_mlp/joint", "float32"), ("train/mnist_svhn_mlp/joint", "bfloat16"),
    }  # fmt: skip
    for row in result["rows"]:
        assert "error" not in row
        assert row["ours"] > 0
        assert row["share_of_the_peak"] > 0


def test_flows_of_the_curved_target_are_those_that_were_trained(tmp_path, monkeypatch):
    monkeypatch.setenv("BENCHMARK_FILES", str(tmp_path))
    trained = {}
    for num_steps in (1, 2):
        ours.train_curved_flows(str(tmp_path), num_steps=num_steps)
        trained[num_steps] = ours.target_flow("curved_20")[1]
    first, second = (jax.tree.leaves(params) for params in trained.values())
    assert all(a.shape == b.shape for a, b in zip(first, second, strict=True))
    assert any(not np.array_equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.slow
def test_all_rows_run_here_at_a_small_size(tmp_path):
    path = tmp_path / "accelerator.json"
    scripts.run("benchmarks.accelerator", "--small", "--output", path)
    result = json.loads(path.read_text())
    assert not result["left_out"]
    assert [row["name"] for row in result["rows"] if "error" in row] == []
    assert {row["name"].split("/")[0] for row in result["rows"]} == {"train", "subset"}
    assert [found["precision"] for found in result["rounding"]] == ["default", "highest"]
    for found in result["rounding"]:  # a CPU rounds nothing off
        assert found["density_error_largest"] < 1e-3
        assert found["inverse_error_largest"] < 1e-5
        assert abs(found["standardised_mean_square"] - 1) < 5 * found["standard_error"]


def test_rows_that_the_minutes_do_not_suffice_for_are_named_and_what_is_not_asked_for_keeps_its_results(tmp_path):
    path = tmp_path / "accelerator.json"
    kept = {"name": "draws/polymnist_32/1", "ours": 1.0}
    path.write_text(
        json.dumps({"rounding": [{"precision": "highest"}], "rows": [kept, {"name": "train/a/joint", "ours": 2.0}]})
    )
    scripts.run("benchmarks.accelerator", "--small", "--output", path, "--minutes", "0", "--only", "train", "subset")
    result = json.loads(path.read_text())
    assert result["rows"] == [kept]
    assert result["rounding"] == [{"precision": "highest"}]
    assert result["left_out"] == [accelerator.label(row) for row in accelerator.rows(small=True)]
    assert "train/mnist_svhn_mlp/joint batch_size=32 precision=float32" in result["left_out"]


def test_the_committed_run_on_an_accelerator_is_whole():
    result = json.loads((run.Arguments().output.parent / "accelerator.json").read_text())
    measured = {accelerator.label_of(row) for row in result["rows"]}
    assert measured.isdisjoint(result["left_out"])
    assert measured | set(result["left_out"]) == {accelerator.label(row) for row in accelerator.rows(small=False)}, (
        "run it again"
    )


def test_a_row_that_does_not_fit_costs_no_other(monkeypatch):
    def too_large(row):
        raise RuntimeError("RESOURCE_EXHAUSTED: out of memory\nand much more")

    monkeypatch.setattr(accelerator.ours, "prepare", too_large)
    row = next(accelerator.rows(small=True))
    found = accelerator.measure(row, None, {"float32": 1.0, "bfloat16": 1.0})
    assert found["error"] == "RESOURCE_EXHAUSTED: out of memory"
    assert "ours" not in found
    assert found["batch_size"] == row.batch_size
    assert "failed" in accelerator._line(found)


def test_a_worker_is_told_a_row_that_is_in_no_list():
    row = settings.Row("train/mnist_svhn_mlp/joint", "samples", 640, 640, batch_size=64, precision="bfloat16")
    assert settings.find(json.dumps(dataclasses.asdict(row))) == row
    assert settings.find("train/mnist_svhn_mlp/joint").examples_per_step == 128
