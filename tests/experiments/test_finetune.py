"""Training that starts from weights: it takes them as they are, keeps them, and a run that is continued starts from no others."""

import dataclasses
import shutil

import jax
import numpy as np
import pytest

from experiments import experiment, train
from jnf_jax.data import linear_gaussian
from jnf_jax.flows import maf
from jnf_jax.models import jnf, mvae
from jnf_jax.networks import mlp
from jnf_jax.training import checkpoint, fit, stages, starts, weights

BRIEF = fit.Config(num_steps=4, batch_size=20, steps_per_call=2, calls_per_validation=1)
CONFIG = experiment.Config(
    data=linear_gaussian.Config(num_train=100, num_validation=40, num_test=20),
    model=jnf.Config(
        latent_dim=2, network=mlp.Config(hidden=(4,)), joint_hidden=(4,), flow=maf.Config(hidden=(4,)), num_codes=40
    ),
    training={"joint": BRIEF, "experts": BRIEF},
)
STILL = dataclasses.replace(BRIEF, learning_rate=1e-12)
OTHER = dataclasses.replace(
    CONFIG,
    seed=1,
    data=dataclasses.replace(CONFIG.data, seed=5),
    model=dataclasses.replace(CONFIG.model, beta=2.0),
    training={"joint": STILL, "experts": STILL},
)


PLAIN = dataclasses.replace(CONFIG, model=mvae.Config(latent_dim=2, network=CONFIG.model.network), training={"vae": BRIEF})
PLAIN_OTHER = dataclasses.replace(PLAIN, seed=1, data=OTHER.data, training={"vae": STILL})  # of one stage: it compiles faster


@pytest.fixture(autouse=True, scope="module")
def single_precision():
    with jax.enable_x64(False):
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run's folder, its parameters, and the folder of its shared weights."""
    folder = tmp_path_factory.mktemp("finetune")
    assert train.train(CONFIG, folder / "run") == 0
    model, _ = experiment.build(CONFIG)
    params = stages.load(model, folder / "run")
    weights.save(folder / "shared", params, config=CONFIG.model, specs=model.specs)
    return folder / "run", params, folder / "shared"


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """The folder of a finished run of one stage, and its parameters."""
    folder = tmp_path_factory.mktemp("finetune") / "run"
    assert train.train(PLAIN, folder) == 0
    return folder, load(folder, PLAIN)


def same(params, other, names=("joint", "decoders", "experts"), atol=1e-6):
    return all(
        np.allclose(a, b, atol=atol)
        for name in names
        for a, b in zip(*map(jax.tree.leaves, (params[name], other[name])), strict=True)
    )


def load(folder, config=OTHER):
    return stages.load(experiment.build(config)[0], folder)


def test_training_starts_from_the_weights_and_keeps_them(run, tmp_path):
    _, params, shared = run
    assert train.train(OTHER, tmp_path / "new", finetuned=shared) == 0
    found = load(tmp_path / "new")
    assert same(found, params)  # a learning rate of nothing leaves them, the experts' encoders too
    assert not same(found, params, ["marginal"])  # what is fitted to codes is fitted to those of the new data
    kept = checkpoint.Directory(tmp_path / "new" / "start").latest(starts.blank(experiment.build(OTHER)[0]))
    assert same(kept, params, atol=0)


class KilledError(BaseException):
    """Ends a run."""


def test_a_killed_run_goes_on_without_the_folder_it_started_from(run, tmp_path, monkeypatch):
    _, params, shared = run
    config = dataclasses.replace(OTHER, training=CONFIG.training)
    assert train.train(config, tmp_path / "whole", finetuned=shared) == 0
    shutil.copytree(shared, tmp_path / "shared")
    kept = stages._write

    def dies(*args):
        kept(*args)
        raise KilledError

    with monkeypatch.context() as patch, pytest.raises(KilledError):  # between the stages
        patch.setattr(stages, "_write", dies)
        train.train(config, tmp_path / "killed", finetuned=tmp_path / "shared")
    shutil.rmtree(tmp_path / "shared")
    with pytest.raises(ValueError, match="to be of this training, got start"):
        model, data = experiment.build(config)
        stages.train(model, jax.random.key(config.seed), data, settings=config.training, folder=tmp_path / "killed")
    assert train.train(config, tmp_path / "killed", finetuned=tmp_path / "shared") == 0
    killed, whole = (load(tmp_path / name, config) for name in ("killed", "whole"))
    assert same(killed, whole, [*whole], atol=0)
    assert not same(whole, params)
    assert same(whole, params, atol=4.5e-3)  # four steps of Adam at 1e-3
    assert train.train(config, tmp_path / "killed") == 0  # finished, and named by nothing


def test_a_start_that_a_kill_left_in_part_is_asked_for_again(plain, tmp_path):
    folder, params = plain
    (tmp_path / "new" / "start").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"whole weights in .*start, got a part: name them by --finetune again"):
        train.train(PLAIN_OTHER, tmp_path / "new")
    assert train.train(PLAIN_OTHER, tmp_path / "new", finetuned=folder) == 0
    assert same(load(tmp_path / "new", PLAIN_OTHER), params, [*params])
    next(p for p in (tmp_path / "new" / "start" / "0").rglob("*") if p.is_file()).write_bytes(b"?")
    with pytest.raises(ValueError, match=r"a whole checkpoint in .*start, got damaged ones only"):
        train.train(PLAIN_OTHER, tmp_path / "new")
    assert train.train(PLAIN_OTHER, tmp_path / "new", finetuned=folder) == 0
    assert train.train(PLAIN_OTHER, tmp_path / "new") == 0


def test_a_run_has_one_start(plain, tmp_path):
    folder, params = plain
    assert train.train(PLAIN_OTHER, tmp_path / "without") == 0
    with pytest.raises(ValueError, match="--finetune at the first command of a run"):
        train.train(PLAIN_OTHER, tmp_path / "without", finetuned=folder)
    assert not (tmp_path / "without" / "start").exists()
    assert train.train(PLAIN_OTHER, tmp_path / "with", finetuned=folder) == 0
    with pytest.raises(ValueError, match="to be of this training, got start"):
        train.train(PLAIN_OTHER, tmp_path / "with", finetuned=tmp_path / "without")
    for name in ("checkpoints", "params"):
        shutil.move(tmp_path / "with" / name, tmp_path / "elsewhere" / name)
    with pytest.raises(ValueError, match=r"the weights that the run in .* began with, got others"):
        train.train(PLAIN_OTHER, tmp_path / "with", finetuned=tmp_path / "without")
    for name in ("checkpoints", "params"):
        shutil.move(tmp_path / "elsewhere" / name, tmp_path / "with" / name)
    with pytest.raises(ValueError, match="--finetune from another folder than"):
        train.train(PLAIN_OTHER, tmp_path / "with", finetuned=tmp_path / "with", overwrite=True)
    assert same(load(tmp_path / "with", PLAIN_OTHER), params, [*params])
    assert train.train(PLAIN_OTHER, tmp_path / "with", overwrite=True) == 0
    assert not (tmp_path / "with" / "start").exists()
    assert not same(load(tmp_path / "with", PLAIN_OTHER), params, [*params])


def test_a_stage_of_a_run_that_started_from_weights_may_be_taken(run, tmp_path):
    _, params, shared = run
    assert train.train(OTHER, tmp_path / "first", finetuned=shared) == 0
    assert train.train(OTHER, tmp_path / "second", taken=(tmp_path / "first", None)) == 0
    found = load(tmp_path / "second")
    assert same(found, params, ["joint", "decoders"])
    assert not same(found, params, ["experts"])


def test_weights_of_other_shapes_are_named_before_anything_is_written(run, tmp_path):
    _, _, shared = run
    config = dataclasses.replace(OTHER, model=dataclasses.replace(OTHER.model, flow=maf.Config(hidden=(6,))))
    with pytest.raises(ValueError, match=r"for experts/.* in what training starts from"):
        train.train(config, tmp_path / "new", finetuned=shared)
    for folder, message in (("nothing", "shared weights, or a run whose stage 'joint' is finished, got .*nothing"),):
        with pytest.raises(ValueError, match=message):
            train.train(OTHER, tmp_path / "new", finetuned=tmp_path / folder)
    assert not (tmp_path / "new").exists()


def test_weights_of_modalities_in_another_order_or_of_a_part_of_the_model_are_refused(run, plain, tmp_path):
    _, params, shared = run
    model, _ = experiment.build(CONFIG)
    turned = jnf.build(CONFIG.model, dict(reversed(model.specs.items())))
    for folder in (run[0], shared):
        with pytest.raises(ValueError, match=r"the modalities \['x2', 'x1', 'x0'\] in this order, got \['x0', 'x1', 'x2'\]"):
            starts.read(turned, folder)
    other = mvae.build(PLAIN.model, model.specs)
    weights.save(tmp_path / "plain", plain[1], config=PLAIN.model, specs=model.specs)
    assert [*starts.read(other, tmp_path / "plain")] == [*starts.read(other, plain[0])] == sorted(plain[1])
    with pytest.raises(ValueError, match=r"Expected .* in what training starts from|got none of"):
        starts.read(model, tmp_path / "plain")
    whole = starts.read(model, shared)
    assert [*whole] == ["decoders", "experts", "joint"]
    assert same(whole, params, atol=0)


def test_some_entries_suffice_in_python(plain):
    _, params = plain
    model, data = experiment.build(PLAIN_OTHER)
    key, settings = jax.random.key(1), PLAIN_OTHER.training
    found, complete = stages.train(model, key, data, settings=settings, start={"decoders": params["decoders"]})
    assert complete
    assert same(found, params, ["decoders"])
    assert not same(found, params, sorted({*params} - {"decoders"}))
    for wrong, message in (({"decoder": {}}, r"some of the model's entries .*, got \['decoder'\]"), (3, "got int")):
        with pytest.raises(ValueError, match=message):
            stages.train(model, key, data, settings=settings, start=wrong)
