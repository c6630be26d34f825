"""A likelihood of one's own is one file: its modality is read, trained, measured, predicted and shared as any other."""

import dataclasses
import importlib
import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import evaluate, experiment, export, predict, run_folder, sample, train
from jnf_jax import ModalitySpec, distributions
from jnf_jax.data import arrays, tables
from jnf_jax.likelihoods import base, heteroscedastic
from jnf_jax.models import jnf
from jnf_jax.networks import mlp
from jnf_jax.training import fit, stages, weights

FILE = '''
"""Ordered categories: P(x <= k) = sigmoid(threshold_k - location)."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from jnf_jax.likelihoods import base


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(base.Config):
    values: ClassVar = "categories"

    spacing: float = 1.0


def build(config, spec):
    middle = spec.num_categories / 2 - 1
    ends = config.spacing * (jnp.arange(spec.num_categories - 1) - middle)

    def log_probs(location):
        below = jax.nn.sigmoid(ends - location[..., None])
        below = jnp.concatenate([jnp.zeros_like(below[..., :1]), below, jnp.ones_like(below[..., :1])], axis=-1)
        return jnp.log(jnp.diff(below) + 1e-12)

    def log_prob(location, x):
        return jnp.take_along_axis(log_probs(location), x[..., None], -1)[..., 0].sum(base.own_axes(spec))

    return base.Likelihood(
        link=lambda raw: raw,
        log_prob=log_prob,
        mean=lambda location: log_probs(location).argmax(-1),
        sample=lambda key, location: jax.random.categorical(key, log_probs(location)),
        probabilities=lambda location: jnp.exp(log_probs(location)),
    )
'''


@pytest.fixture
def ordinal(tmp_path, monkeypatch):
    (tmp_path / "ordinal.py").write_text(FILE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("JNF_MODULES", "ordinal")
    monkeypatch.delitem(sys.modules, "ordinal", raising=False)
    module = importlib.import_module("ordinal")
    monkeypatch.setitem(sys.modules, "ordinal", module)  # forgotten afterwards
    return module


def write_table(path, num=300):
    rng = np.random.default_rng(0)
    cause = rng.normal(size=num)
    grade = np.array(["none", "mild", "severe"])[np.digitize(cause + 0.3 * rng.normal(size=num), [-0.5, 0.8])]
    rows = [f"{c + 0.3 * rng.normal():.4f},{g}" for c, g in zip(cause, grade, strict=True)]
    path.write_text("\n".join(["pressure,grade", *rows]))


def test_ordered_categories_are_read_trained_measured_predicted_and_shared(ordinal, tmp_path, monkeypatch):
    write_table(tmp_path / "patients.csv")
    spec = ModalitySpec(shape=(1,), likelihood=ordinal.Config(spacing=2.0), num_categories=3, labels=("none", "mild", "severe"))
    config = experiment.Config(
        data=tables.Config(
            path=str(tmp_path / "patients.csv"),
            columns={"blood": ("pressure",), "state": ("grade",)},
            specs={"state": spec},
            scale=0.3,
        ),
        model=jnf.Config(latent_dim=2, network=mlp.Config(hidden=(16,))),
        training=dict.fromkeys(("joint", "experts"), fit.Config(num_steps=400, batch_size=48, learning_rate=3e-3)),
    )
    run = tmp_path / "run"
    with jax.enable_x64(False):
        assert train.train(config, run) == 0
        assert run_folder.load(run) == config
        model, _ = experiment.build(config)
        assert model.specs["state"].parameter_shape == (1,)
        params = stages.load(model, run)

        for main, options in (
            (
                evaluate.main,
                ["--num-observations", "40", "--num-samples", "4", "--num-likelihood", "10", "--num-importance", "10"],
            ),
            (predict.main, ["--observe", "blood", "--num-samples", "20", "--output", str(tmp_path / "values")]),
            (sample.main, ["--observe", "blood", "--num-observations", "4"]),
        ):
            monkeypatch.setattr(sys, "argv", [main.__module__, "--workdir", str(run), *options])
            assert main() == 0
        found = json.loads((run / "evaluation.json").read_text())
        assert found["prediction"]["by_subset"]["blood"]["state"] > 0.6  # the commonest grade is under a half

        export.export(run, tmp_path / "shared")
        assert "`JNF_MODULES=ordinal`" in (tmp_path / "shared" / "README.md").read_text()
        loaded, same = weights.load(tmp_path / "shared")
        assert loaded.specs == model.specs
        jax.tree.map(np.testing.assert_array_equal, same, params)

        other = {**model.specs, "state": dataclasses.replace(spec, likelihood="categorical")}
        with pytest.raises(ValueError, match=r"specs\.state\.likelihood"):
            stages.load(jnf.build(config.model, other), tmp_path / "shared")
        monkeypatch.delenv("JNF_MODULES")
        with pytest.raises(ValueError, match=r"config\.json that can be built here, got one that cannot: .* JNF_MODULES"):
            run_folder.load(run)


def test_probabilities_of_ordered_categories_sum_to_one(ordinal):
    spec = ModalitySpec(shape=(1,), likelihood=ordinal.Config(), num_categories=4)
    location = jnp.asarray([[0.3], [-2.0]])
    probabilities = [np.exp(distributions.log_likelihood(spec, location, jnp.full((2, 1), k))) for k in range(4)]
    np.testing.assert_allclose(sum(probabilities), 1, rtol=1e-9)


class Positive(base.Config):
    standardised = False


def test_values_that_must_not_be_shifted_are_left_as_they_are(tmp_path):
    write_table(tmp_path / "patients.csv")
    text = (tmp_path / "patients.csv").read_text().splitlines()
    rows = [f"{np.exp(float(row.split(',')[0])):.4f},{row.split(',')[1]}" for row in text[1:]]
    (tmp_path / "patients.csv").write_text("\n".join([text[0], *rows]))
    columns = {"blood": ("pressure",), "state": ("grade",)}
    for likelihood, standardised in (("gaussian", True), (Positive(), False)):
        given = {"blood": ModalitySpec(shape=(1,), likelihood=likelihood)}
        found = tables.build(tables.Config(path=str(tmp_path / "patients.csv"), columns=columns, specs=given), "train")
        assert (found.specs["blood"].mean is not None) == standardised
        assert (found.arrays["blood"].min() < 0) == standardised
    with pytest.raises(ValueError, match="a mean for unbounded real values alone, got one for test_own_likelihood"):
        ModalitySpec(shape=(1,), likelihood=Positive(), mean=(0.0,), deviation=(1.0,))


def test_flags_change_a_likelihood_that_has_a_name_and_settings_of_one_that_has_none():
    given = {"a": ModalitySpec(shape=(3,)), "b": ModalitySpec(shape=(3,), likelihood=heteroscedastic.Config())}
    config = experiment.Config(data=arrays.Config(path="x.npz", specs=given), model=jnf.Config(latent_dim=2), training={})
    flags = ["--data.specs.a.likelihood", "laplace", "--data.specs.b.likelihood.factor", "3"]
    found = experiment.parse(config, flags, program="train").data.specs
    assert found["a"].likelihood == "laplace"
    assert found["b"].likelihood == heteroscedastic.Config(factor=3.0)


def test_what_lacks_a_modality_whose_values_are_positive_holds_a_positive_value():
    given = {"a": ModalitySpec(shape=(2,), likelihood=Positive()), "b": ModalitySpec(shape=(2,))}
    values = {"a": np.full((40, 2), 3.0), "b": np.ones((40, 2))}
    values["a"][::2] = 0
    found = arrays.splits(given, values, masks={"a": np.arange(40) % 2 == 1})["train"]
    assert not found.masks["a"].all()
    np.testing.assert_array_equal(found.arrays["a"], 3)
