"""Values generated for a data set, by a model whose posteriors say what they were given."""

import csv
import errno
import os
import sys
import types as python_types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import predict
from jnf_jax import predictions, specs, types, units
from jnf_jax.data import source
from jnf_jax.models import base

SPECS = {
    "a": specs.ModalitySpec(shape=(2,)),
    "b": specs.ModalitySpec(shape=(3,), scale=0.5, mean=(100.0, 0.0, -7.0), deviation=(10.0, 1.0, 2.0), labels=("x", "y", "z")),
    "c": specs.ModalitySpec(shape=(1,), likelihood="categorical", num_categories=2, labels=("ill", "well")),
}
NUM = 60
MASKS = {"b": np.arange(NUM) % 2 == 0, "c": np.arange(NUM) % 3 > 0}  # of six examples one lacks both
CODES = {"a": 1000.0, "b": 0.0, "c": 10.0}


def model():
    """z is the number of the example, and a thousand where `a` was given, ten where `c` was."""

    def sample_posterior(params, key, observed, *, num_samples):
        example = next(iter(observed.values())).reshape(len(next(iter(observed.values()))), -1)[:, 0]
        loc = jnp.where("a" in observed or "b" in observed, example, 0) + sum(CODES[name] for name in observed)
        z = jnp.broadcast_to(loc, (num_samples, *loc.shape))[..., None]
        return z, types.exact_info(z)

    def decode(params, z):
        return {
            "a": jnp.tile(z, 2),
            "b": jnp.tile(z, 3),
            "c": jnp.stack([jnp.zeros_like(z), jnp.full_like(z, np.log(3.0))], -1),  # well at three quarters
        }

    others = ("init", "sample_prior", "posterior_log_density", "log_likelihood", "elbo")
    return base.Model(specs=SPECS, latent_dim=1, stages=(), sample_posterior=sample_posterior, decode=decode,
                      **dict.fromkeys(others))  # fmt: skip


def data(masks=MASKS):
    rows = np.arange(NUM, dtype=np.float32)[:, None]
    arrays = {"a": np.tile(rows, 2), "b": np.tile(rows, 3), "c": np.zeros((NUM, 1), np.int32)}
    return source.Source(specs=SPECS, arrays=arrays, masks=masks, rows=1000 + np.arange(NUM))


def found(**options):
    return predictions.predict(model(), {}, jax.random.key(0), data(), **options)


@pytest.mark.parametrize("batch_size", [7, 100])
def test_what_an_example_lacks_is_generated_from_all_that_it_has(batch_size):
    result = found(noise=False, num_samples=2, batch_size=batch_size)
    assert list(result) == ["b", "c"]
    for name in ("b", "c"):
        np.testing.assert_array_equal(result[name].examples, np.flatnonzero(~MASKS[name]))
    lacking = result["b"].examples
    z = 1000 + lacking + 10 * MASKS["c"][lacking]
    np.testing.assert_array_equal(result["b"].values, np.broadcast_to(z[:, None], (2, len(z), 3)))


def test_draws_are_written_into_arrays_that_the_caller_allocates(tmp_path):
    def allocate(name, shape, dtype):
        return np.memmap(tmp_path / name, dtype, "w+", shape=shape)

    result, expected = found(num_samples=2, batch_size=7, allocate=allocate), found(num_samples=2, batch_size=7)
    for name, predicted in result.items():
        assert isinstance(predicted.values, np.memmap)
        jax.tree.map(np.testing.assert_array_equal, predicted._replace(values=np.asarray(predicted.values)), expected[name])
        written = np.fromfile(tmp_path / name, predicted.values.dtype)
        np.testing.assert_array_equal(written, np.ravel(expected[name].values))


def test_all_else_is_generated_from_what_is_given():
    result = found(given=["c"], noise=False, num_samples=1)
    assert list(result) == ["a", "b"]  # b too of the examples that have it
    np.testing.assert_array_equal(result["a"].examples, np.flatnonzero(MASKS["c"]))
    assert (result["a"].values == 10).all()


def test_a_draw_has_the_noise_of_the_likelihood():
    result = found(given=["a"], num_samples=400)
    noise = result["b"].values - (1000 + np.arange(NUM))[:, None]
    count = noise.size
    assert abs(noise.mean()) < 5 * 0.5 / np.sqrt(count)
    assert noise.std() == pytest.approx(0.5, abs=5 * 0.5 / np.sqrt(2 * count))
    share = result["c"].values.mean()
    assert share == pytest.approx(0.75, abs=5 * np.sqrt(0.75 * 0.25 / result["c"].values.size))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"given": ["d"]}, "'d'"),
        ({"given": []}, "some of the modalities"),
        ({"given": ["a", "b", "c"]}, "and not all"),
        ({"num_samples": 0}, "num_samples of at least 1"),
    ],
)
def test_bad_questions_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        found(**options)


def test_the_command_writes_the_units_of_the_file_and_the_names_of_categories(tmp_path, monkeypatch, capsys):
    splits = {"train": data(), "validation": data(masks=None), "test": data()}
    monkeypatch.setattr(predict.run_folder, "load", lambda folder: None)
    monkeypatch.setattr(predict.experiment, "build", lambda config: (model(), splits))
    monkeypatch.setattr(predict.stages, "load", lambda *args, **options: {})
    output = tmp_path / "predicted"
    command = ["predict", "--workdir", str(tmp_path), "--output", str(output), "--num-samples", "3", "--mean"]
    monkeypatch.setattr(sys, "argv", command)
    written, write = [], predict._write
    monkeypatch.setattr(predict, "_write", lambda *arguments: (written.append(arguments[-1].values), write(*arguments)))
    assert predict.main() == 0
    assert written and all(isinstance(values, np.memmap) for values in written)  # not in memory
    assert "b: 60 examples" in capsys.readouterr().out  # 30 of two splits
    assert sorted(path.name for path in output.iterdir()) == ["test", "train"]  # nothing is lacking in the validation data
    table = list(csv.DictReader((output / "test" / "b.csv").open()))
    assert list(table[0]) == ["row", "draw", "x", "y", "z", "rhat"]
    assert len(table) == 3 * int((~MASKS["b"]).sum())
    first = table[0]
    assert (first["row"], first["draw"]) == ("1001", "0")
    z = 1000 + 1 + 10 * MASKS["c"][1]
    np.testing.assert_allclose([float(first[n]) for n in "xyz"], [100 + 10 * z, z, -7 + 2 * z])
    assert {row["c"] for row in csv.DictReader((output / "test" / "c.csv").open())} == {"well"}
    with pytest.raises(ValueError, match="a new or an empty folder"):
        predict.main()
    monkeypatch.setattr(sys, "argv", [*command[:4], str(tmp_path / "none"), "--splits", "validation"])
    with pytest.raises(ValueError, match="an example that lacks a modality in validation, got none"):
        predict.main()
    assert not (tmp_path / "none").exists()


def test_pictures_are_written_as_arrays(tmp_path):
    spec = specs.ModalitySpec(shape=(2, 2, 1), support=(0.0, 1.0))
    values = np.random.default_rng(0).uniform(size=(3, 2, 2, 2, 1))
    part = python_types.SimpleNamespace(specs={"scan": spec}, rows=None)
    predict._write(tmp_path, "scan", part, predictions.Predicted(np.asarray([4, 6]), values, np.ones(2)))
    with np.load(tmp_path / "scan.npz") as file:
        np.testing.assert_array_equal(file["row"], [4, 6])
        np.testing.assert_array_equal(file["values"], values)


def test_standardised_arrays_are_written_in_the_units_of_the_file(tmp_path):
    spec = specs.ModalitySpec(shape=(2, 2), mean=(1.0, 2.0, 3.0, 4.0), deviation=(10.0,) * 4)
    values = np.random.default_rng(0).normal(size=(3, 5, 2, 2)).astype(np.float32)
    part = python_types.SimpleNamespace(specs={"field": spec}, rows=None)
    predict._write(tmp_path, "field", part, predictions.Predicted(np.arange(5), values, np.ones(5)))
    with np.load(tmp_path / "field.npz") as file:
        np.testing.assert_allclose(file["values"], [[1, 2], [3, 4]] + 10 * values.astype(float))
    assert [path.name for path in tmp_path.iterdir()] == ["field.npz"]


def test_a_full_disk_is_told_before_draws_are_written(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space left"):
        predict._on_disk(tmp_path, (3, 4), np.float32)
    assert not list(tmp_path.iterdir())


def test_values_go_to_the_units_of_the_file_and_back():
    x = np.random.default_rng(0).normal(size=(4, 5, 3)).astype(np.float32)
    there = units.original(SPECS["b"], x)
    np.testing.assert_allclose(there, [100, 0, -7] + np.asarray([10, 1, 2]) * x.astype(float), rtol=1e-6)
    np.testing.assert_allclose(units.standardised(SPECS["b"], there), x, rtol=1e-4, atol=1e-5)
    traced = jax.jit(lambda x: units.standardised(SPECS["b"], units.original(SPECS["b"], x)))(x)
    np.testing.assert_allclose(traced, x, rtol=1e-4, atol=1e-4)
    assert units.original(SPECS["a"], x) is x
    assert units.standardised(SPECS["a"], x) is x
    with pytest.raises(ValueError, match=r"shape \(.., 3\), got \(2,\)"):
        units.original(SPECS["b"], np.zeros(2))


def test_a_small_deviation_from_a_large_mean_survives():
    spec = specs.ModalitySpec(shape=(1,), mean=(1e9,), deviation=(1.0,))
    x = units.standardised(spec, np.asarray([[1e9 + 1], [1e9 - 2]]))
    np.testing.assert_array_equal(x, [[1], [-2]])
    assert x.dtype == np.float32


@pytest.mark.parametrize(
    "options",
    [
        {"mean": (1.0,)},
        {"mean": (1.0,), "deviation": (1.0, 2.0)},
        {"mean": (1.0, 1.0), "deviation": (1.0, 0.0)},
        {"mean": 1.0, "deviation": 1.0},
        {"mean": ("a", "b"), "deviation": (1.0, 1.0)},
    ],
)
def test_a_mean_has_a_deviation_for_each_entry(options):
    with pytest.raises(ValueError, match="deviation"):
        specs.ModalitySpec(shape=(2,), **options)


@pytest.mark.parametrize("options", [{"likelihood": "bernoulli"}, {"support": (0.0, 1.0)}])
def test_values_that_nobody_standardises_have_no_mean(options):
    with pytest.raises(ValueError, match="a mean for unbounded real values alone"):
        specs.ModalitySpec(shape=(1,), mean=(0.0,), deviation=(1.0,), **options)


def test_many_digits_of_a_large_mean_are_written():
    spec = specs.ModalitySpec(shape=(1,), mean=(1.7e9,), deviation=(3600.0,))
    assert predict._words(spec, np.asarray([1.7e9 + 360])) == ["1700000360"]


def test_whole_numbers_are_no_reason_to_round_a_deviation():
    spec = specs.ModalitySpec(shape=(1,), mean=(50.5,), deviation=(0.5,))
    np.testing.assert_allclose(units.standardised(spec, jnp.asarray([[63], [50]])), [[25], [-1]])
    np.testing.assert_allclose(units.original(spec, jnp.asarray([[25], [-1]])), [[63], [50]])
