import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jnf_jax import configs, specs
from jnf_jax.data import arrays, source
from jnf_jax.marginals import mixture
from jnf_jax.models import base, jmvae, jnf, mvae
from jnf_jax.networks import mlp
from jnf_jax.posteriors import hmc
from jnf_jax.projectors import dcca
from jnf_jax.training import checkpoint, fit, preconditions, stages

SETTINGS = fit.Config(num_steps=40, batch_size=8, learning_rate=0.05, steps_per_call=10, calls_per_validation=1)


SPECS = {"x": specs.ModalitySpec(shape=(1,))}


def regression():
    """A model of one stage that learns a slope; what it cannot do is not there."""
    loss = lambda params, key, batch: (((params["slope"] - 2) * batch["x"] ** 2).mean() ** 2, {})
    names = ("sample_prior", "sample_posterior", "posterior_log_density", "decode", "log_likelihood", "elbo")
    return base.Model(
        specs=SPECS,
        latent_dim=1,
        init=lambda key: {"slope": jnp.zeros(())},
        stages=(base.Stage(name="slope", trainable=("slope",), loss=loss),),
        **dict.fromkeys(names),
    )


def splits(modalities, *, train, validation):
    rng = np.random.default_rng(0)
    return {
        split: source.Source(
            specs=modalities, arrays={name: rng.normal(size=(num, *spec.shape)) for name, spec in modalities.items()}
        )
        for split, num in (("train", train), ("validation", validation))
    }


def test_a_damaged_checkpoint_is_told_with_the_step_that_training_really_continues_at(tmp_path):
    model, data = regression(), splits(SPECS, train=50, validation=20)
    stop = iter([False, False, True]).__next__
    _, complete = stages.train(model, jax.random.key(0), data, settings={"slope": SETTINGS}, folder=tmp_path, should_stop=stop)
    assert not complete
    states = checkpoint.Directory(tmp_path / "checkpoints" / "slope")
    assert states.steps() == [20, 30]
    broken = next(p for p in (states.path / "30").rglob("*") if p.is_file() and p.stat().st_size)
    broken.write_bytes(b"?")
    resumed = []
    params, complete = stages.train(
        model,
        jax.random.key(0),
        data,
        settings={"slope": SETTINGS},
        folder=tmp_path,
        on_resume=lambda *args: resumed.append(args),
    )
    assert complete
    ((stage, step, damaged),) = resumed
    assert (stage, step) == ("slope", 20)
    assert len(damaged) == 1
    assert str(broken) in damaged[0]
    whole, _ = stages.train(model, jax.random.key(0), data, settings={"slope": SETTINGS})
    np.testing.assert_array_equal(params["slope"], whole["slope"])


def test_the_weights_before_a_step_that_was_not_finite_are_kept(tmp_path):
    model, data = regression(), splits(SPECS, train=50, validation=20)
    whole = model.stages[0].loss
    broken = lambda params, *batch: (whole(params, *batch)[0] + jnp.where(params["slope"] > 0.6, jnp.nan, 0.0), {})
    model = dataclasses.replace(model, stages=(dataclasses.replace(model.stages[0], loss=broken),))
    with pytest.raises(fit.NonFiniteError) as caught:
        stages.train(model, jax.random.key(0), data, settings={"slope": SETTINGS}, folder=tmp_path)
    kept = checkpoint.Directory(tmp_path / "failed" / "slope")
    assert kept.steps() == [caught.value.failed_step]
    np.testing.assert_array_equal(kept.latest({"slope": jnp.zeros(())})["slope"], caught.value.params["slope"])
    assert float(caught.value.params["slope"]) > 0.5


def test_codes_that_a_marginal_lacks_are_told_before_anything_is_trained():
    small = {"latent_dim": 2, "network": mlp.Config(hidden=(8,)), "joint_hidden": (8,)}
    with pytest.raises(ValueError, match="Expected num_codes of at least 40, for as many components of the marginal, got 39"):
        jnf.build(jnf.Config(**small, num_codes=39), SPECS | {"y": specs.ModalitySpec(shape=(2,))})
    model = jnf.build(jnf.Config(**small, num_codes=40), SPECS | {"y": specs.ModalitySpec(shape=(2,))})
    settings = {name: dataclasses.replace(SETTINGS, batch_size=8) for name in ("joint", "experts")}
    preconditions.check(model, splits(model.specs, train=40, validation=20), settings)
    with pytest.raises(ValueError, match="Expected at least 40 training examples for stage 'marginal', got 39"):
        preconditions.check(model, splits(model.specs, train=39, validation=20), settings)


@pytest.mark.parametrize(("batch", "validation", "message"), [(4, 40, "got 4"), (16, 5, "got 5"), (16, 40, None)])
def test_a_batch_too_small_for_a_loss_is_refused_before_anything_is_trained(batch, validation, message):
    """Also validation's only one."""
    modalities = {name: specs.ModalitySpec(shape=(4,)) for name in "ab"}
    config = jnf.Config(latent_dim=2, network=mlp.Config(hidden=(8,)), joint_hidden=(8,), projector=dcca.Config(dim=6))
    model = jnf.build(config, modalities)
    settings = {stage.name: dataclasses.replace(SETTINGS, batch_size=8) for stage in model.stages if stage.loss is not None}
    settings["projector"] = dataclasses.replace(SETTINGS, batch_size=batch)
    data = splits(modalities, train=50, validation=validation)
    if message is None:
        preconditions.check(model, data, settings)
    else:
        with pytest.raises(ValueError, match=f"Expected a batch of more than 6 examples .* {message}"):
            preconditions.check(model, data, settings)


def test_a_split_that_is_missing_is_named():
    modalities = {"a": specs.ModalitySpec(shape=(4,)), "b": specs.ModalitySpec(shape=(4,))}
    model = jmvae.build(jmvae.Config(latent_dim=2, network=mlp.Config(hidden=(8,)), joint_hidden=()), modalities)
    data = splits(modalities, train=50, validation=20)
    with pytest.raises(ValueError, match="the splits 'train' and 'validation', got none called 'validation'"):
        preconditions.check(model, {"train": data["train"]}, {"vae": SETTINGS})


def test_incomplete_examples_train_what_takes_them_and_nothing_else():
    modalities = {name: specs.ModalitySpec(shape=(4,)) for name in "ab"}
    masks = lambda num: {"a": np.arange(num) % 3 > 0}
    data = {
        split: dataclasses.replace(part, masks=masks(len(part)))
        for split, part in splits(modalities, train=50, validation=20).items()
    }
    small = {"latent_dim": 2, "network": mlp.Config(hidden=(8,))}
    settings = {"vae": dataclasses.replace(SETTINGS, batch_size=8)}
    _, complete = stages.train(mvae.build(mvae.Config(**small), modalities), jax.random.key(0), data, settings=settings)
    assert complete
    with pytest.raises(ValueError, match="examples with every modality for stage 'vae'"):
        preconditions.check(jmvae.build(jmvae.Config(**small, joint_hidden=()), modalities), data, settings)


TWO = {"a": specs.ModalitySpec(shape=(2,)), "b": specs.ModalitySpec(shape=(3,))}
SHORT = fit.Config(num_steps=2, batch_size=8, steps_per_call=1, calls_per_validation=1)
PLAIN = mvae.Config(latent_dim=2, network=mlp.Config(hidden=(4,)))


def changed(modality, **fields):
    return TWO | {modality: dataclasses.replace(TWO[modality], **fields)}


@pytest.mark.parametrize(
    ("config", "modalities", "shift", "message"),
    [
        (dataclasses.replace(PLAIN, beta=3.0), TWO, 0, r"of this training, got model.beta: 1.0 -> 3.0\. .* another folder"),
        (PLAIN, changed("b", scale=0.5), 0, "got specs.b.scale: 1.0 -> 0.5"),
        (PLAIN, dict(reversed(TWO.items())), 0, r"order of specs: \W*a\W*b\W* -> \W*b\W*a\W*"),
        (PLAIN, TWO, 5, r"got data.train.a.mean: .* -> .*; data.train.b.mean: "),
    ],
)
def test_a_folder_is_that_of_one_model_and_its_data(tmp_path, config, modalities, shift, message):
    def run(config, modalities, shift):
        data = splits(modalities, train=50, validation=20)
        moved = {
            name: dataclasses.replace(part, arrays={m: x + shift for m, x in part.arrays.items()})
            for name, part in data.items()
        }
        model = mvae.build(config, modalities)
        return model, moved, stages.train(model, jax.random.key(0), moved, settings={"vae": SHORT}, folder=tmp_path)[0]

    model, data, params = run(PLAIN, TWO, 0)
    jax.tree.map(np.testing.assert_array_equal, run(PLAIN, TWO, 0)[2], params)
    jax.tree.map(np.testing.assert_array_equal, stages.load(model, tmp_path, data=data), params)
    with pytest.raises(ValueError, match=message):
        run(config, modalities, shift)
    other = {
        name: dataclasses.replace(part, arrays={m: x + shift for m, x in part.arrays.items()}) for name, part in data.items()
    }
    with pytest.raises(ValueError, match=message):
        stages.load(mvae.build(config, modalities), tmp_path, data=other)


def test_what_no_stage_depends_on_may_change(tmp_path):
    small = jnf.Config(latent_dim=2, network=mlp.Config(hidden=(4,)), joint_hidden=(4,), num_codes=50)
    small = dataclasses.replace(small, marginal=mixture.Config(num_components=(2,)))
    modalities = TWO | {"c": specs.ModalitySpec(shape=(2,))}
    data = splits(modalities, train=50, validation=20)
    train = lambda config: stages.train(
        jnf.build(config, modalities), jax.random.key(0), data, settings={"joint": SHORT, "experts": SHORT}, folder=tmp_path
    )[0]
    first = train(small)
    longer = dataclasses.replace(small, sampler=hmc.Config(num_warmup=25), product_rule="prior")
    jax.tree.map(np.testing.assert_array_equal, train(longer), first)
    jax.tree.map(np.testing.assert_array_equal, stages.load(jnf.build(longer, modalities), tmp_path), first)
    shown = modalities | {"a": dataclasses.replace(modalities["a"], unit="mm", labels=("x", "y"))}
    jax.tree.map(np.testing.assert_array_equal, stages.load(jnf.build(small, shown), tmp_path), first)
    with pytest.raises(ValueError, match=r"got model.rescale: false -> true"):
        train(dataclasses.replace(small, rescale=True))
    with pytest.raises(ValueError, match=r"got model.networks.a: null -> "):
        train(dataclasses.replace(small, networks={"a": mlp.Config(hidden=(4,), activation="tanh")}))


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (changed("a", likelihood="bernoulli"), "likelihood='gaussian' for modality 'a', got likelihood='bernoulli'"),
        (changed("b", scale=0.1), "scale=1.0 for modality 'b', got scale=0.1"),
        (changed("b", support=(0.0, 1.0)), r"support=None for modality 'b', got support=\(0.0, 1.0\)"),
        (TWO | {"c": TWO["a"]}, r"the model's modalities \['a', 'b'\], got \['a', 'b', 'c'\]"),
        ({"a": TWO["a"]}, r"the model's modalities \['a', 'b'\], got \['a'\]"),
    ],
)
def test_data_of_other_specs_are_refused(found, message):
    arrays = lambda: {name: np.zeros((20, *spec.shape)) for name, spec in found.items()}
    data = {split: source.Source(specs=found, arrays=arrays()) for split in ("train", "validation")}
    with pytest.raises(ValueError, match=message):
        stages.train(mvae.build(PLAIN, TWO), jax.random.key(0), data, settings={"vae": SHORT})


def test_one_split_or_one_config_is_no_mapping():
    data = splits(TWO, train=20, validation=20)
    model = mvae.build(PLAIN, TWO)
    with pytest.raises(ValueError, match="data as a mapping, by split or by stage, got Source"):
        stages.train(model, jax.random.key(0), data["train"], settings={"vae": SHORT})
    with pytest.raises(ValueError, match="settings as a mapping, by split or by stage, got Config"):
        stages.train(model, jax.random.key(0), data, settings=SHORT)


def test_a_spec_may_hold_numpys_numbers(tmp_path):
    modalities = {
        "a": specs.ModalitySpec(shape=(np.int64(2),), scale=np.float32(0.5), support=(np.float64(-9), 9)),
        "b": specs.ModalitySpec(shape=(1,), likelihood="categorical", num_categories=np.int64(3)),
    }
    arrays = {"a": np.zeros((20, 2)), "b": np.ones((20, 1), int)}
    data = {split: source.Source(specs=modalities, arrays=arrays) for split in ("train", "validation")}
    assert type(modalities["a"].scale) is float
    assert type(modalities["b"].num_categories) is int
    train = lambda folder: stages.train(
        mvae.build(PLAIN, modalities), jax.random.key(0), data, settings={"vae": SHORT}, folder=folder
    )
    kept, complete = train(tmp_path)
    assert complete
    jax.tree.map(np.testing.assert_array_equal, kept, train(None)[0])


def test_a_config_that_was_of_the_main_program_may_move_into_a_module():
    old, new = ({"model": {"type": f"{module}:Net", "width": 3}} for module in ("__main__", "mine"))
    assert configs.differences(old, new, common=True) == {}
    assert configs.differences(old, {"model": {"type": "mine:Other", "width": 3}}, common=True)
    assert configs.differences(old, {"model": {"type": "mine:Net", "width": 4}}, common=True) == {"model.width": (3, 4)}
    assert configs.differences(old, new)


def test_a_projector_needs_pairs_in_each_batch_and_in_the_validation_split():
    modalities = {name: specs.ModalitySpec(shape=(4,)) for name in "ab"}
    rng = np.random.default_rng(0)
    mask = rng.random(300) < 0.5
    splits = arrays.splits(modalities, {name: rng.normal(size=(300, 4)) for name in modalities}, masks={"a": mask})
    config = jnf.Config(latent_dim=2, network=mlp.Config(hidden=(4,)), incomplete=True, projector=dcca.Config(dim=5, top=2))
    model = jnf.build(config, modalities)
    settings = {stage.name: fit.Config(num_steps=2, batch_size=64) for stage in model.stages if stage.loss is not None}
    preconditions.check(model, splits, settings)
    few = splits | {"validation": splits["validation"].select(np.flatnonzero(splits["validation"].having("ab"))[:3])}
    rest = splits["validation"].select(np.flatnonzero(~splits["validation"].having("ab")))
    few["validation"] = dataclasses.replace(
        rest,
        arrays={n: np.concatenate([few["validation"].arrays[n], rest.arrays[n]]) for n in modalities},
        masks={"a": np.concatenate([few["validation"].masks["a"], rest.masks["a"]])},
        rows=None,
    )
    with pytest.raises(ValueError, match="at least 6 examples in a validation batch of"):
        preconditions.check(model, few, settings)
    small = {name: dataclasses.replace(config, batch_size=8) for name, config in settings.items()}
    with pytest.raises(ValueError, match="at least 6 examples in a train batch of 8"):
        preconditions.check(model, splits, small)
