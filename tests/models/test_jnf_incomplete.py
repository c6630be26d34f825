"""JNF on examples that lack modalities."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from jnf_jax import distributions, specs, types
from jnf_jax.data import source
from jnf_jax.flows import maf
from jnf_jax.models import base, fitted, jnf
from jnf_jax.networks import mlp
from jnf_jax.projectors import contrastive, dcca
from jnf_jax.training import stages

NUM, NAMES, DIM = 40, ("a", "b", "c"), 3
SPECS = {name: specs.ModalitySpec(shape=(4,), scale=0.5) for name in NAMES}
RNG = np.random.default_rng(0)
DATA = {name: RNG.normal(size=(NUM, 4)) for name in NAMES}
MASKS = {"a": np.arange(NUM) % 4 != 0, "c": np.arange(NUM) % 3 != 1}  # b is in all
PROJECTORS = {"none": None, "contrastive": contrastive.Config(dim=3, width=8), "dcca": dcca.Config(dim=2)}


@functools.cache
def built(projector="none"):
    config = jnf.Config(
        latent_dim=DIM, network=mlp.Config(hidden=(8,)), joint_hidden=(8,), flow=maf.Config(hidden=(8,)),
        projector=PROJECTORS[projector], projected_hidden=(8,), num_codes=NUM, incomplete=True,
    )  # fmt: skip
    parts = jnf.make_parts(config, SPECS)
    model = jnf.build(config, SPECS)
    leaves, tree = jax.tree.flatten(model.init(jax.random.key(0)))
    moved = [x + 0.2 * jax.random.normal(jax.random.key(i), x.shape, x.dtype) for i, x in enumerate(leaves)]
    return parts, model, tree.unflatten(moved)


def loss_of(stage, params, batch):
    batch = batch if stage.prepare is None else stage.prepare(params, batch)
    return stage.loss(params, jax.random.key(0), batch)[0]


def same(a, b):
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6, atol=1e-9), a, b)


@pytest.mark.parametrize("projector", PROJECTORS)
def test_missing_data_stand_for_nothing_and_masks_that_miss_nothing_change_nothing(projector):
    _, model, params = built(projector)
    other = {n: np.where(MASKS[n][:, None], x, 17.0) if n in MASKS else x for n, x in DATA.items()}
    everything = {n: np.ones(NUM, bool) for n in NAMES}
    assert all(stage.incomplete for stage in model.stages)
    for stage in model.stages:
        if stage.loss is None:
            continue
        value = jax.jit(jax.value_and_grad(functools.partial(loss_of, stage)))
        masked = value(params, {**DATA, types.MASKS: MASKS})
        assert np.isfinite(masked[0])
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(masked[1]))
        same(masked, value(params, {**other, types.MASKS: MASKS}))
        plain = value(params, DATA)
        same(value(params, {**DATA, types.MASKS: everything}), plain)
        assert abs(masked[0] - plain[0]) > 1e-3


def test_fitted_densities_take_what_examples_have():
    _, model, params = built()
    other = {n: np.where(MASKS[n][:, None], x, 17.0) if n in MASKS else x for n, x in DATA.items()}
    for stage in model.stages:
        if stage.solve is not None:
            solve = lambda data, stage=stage: stage.solve(params, jax.random.key(1), data, data)
            first, second = (solve({**data, types.MASKS: MASKS}) for data in (DATA, other))
            assert jax.tree.all(jax.tree.map(lambda a, b: np.allclose(a, b, rtol=1e-6, atol=1e-9), first, second))
            assert not jax.tree.all(jax.tree.map(lambda a, b: np.allclose(a, b, rtol=1e-3), first, solve(DATA)))


@pytest.mark.parametrize(("least", "fewest"), [(1, 3), (20, 3), (21, 2), (37, 2), (38, 1), (99, 1)])
def test_the_marginal_sees_the_codes_of_the_most_complete(least, fewest):
    batch = DATA | {types.MASKS: MASKS}
    counts = 1 + MASKS["a"].astype(int) + MASKS["c"]
    assert [(counts == n).sum() for n in (3, 2, 1)] == [20, 17, 3]
    expected = np.flatnonzero(counts >= fewest)
    np.testing.assert_array_equal(fitted.most_complete(batch, share=least / NUM), expected)
    np.testing.assert_array_equal(fitted.most_complete(DATA, share=least / NUM), np.arange(NUM))
    parts, _, params = built()
    rows = []
    fit = lambda seed, codes, held_out: rows.append((codes, held_out)) or {}
    marginal = dataclasses.replace(parts.shared.rule.marginal, fit=fit, least_codes=least)
    shared = dataclasses.replace(parts.shared, rule=dataclasses.replace(parts.shared.rule, marginal=marginal))
    half = jax.tree.map(lambda x: x[: NUM // 2], batch)
    fitted.solve_marginal(shared, NUM, params, jax.random.key(1), batch, half)
    for codes, there in zip(rows[0], (counts, counts[: NUM // 2]), strict=True):
        wanted = min(max(least, NUM // 4) / NUM * len(there), len(there))  # the same share of both
        assert len(codes) == next(num for n in (3, 2, 1) if (num := (there >= n).sum()) >= wanted)


def test_training_gives_the_masks_to_what_is_fitted_outright():
    given = []

    def solve(params, key, train, validation):
        given.extend([train, validation])
        return {"fitted": jnp.zeros(1)}

    stage = base.Stage(name="fitted", trainable=("fitted",), loss=None, solve=solve, incomplete=True)
    model = dataclasses.replace(built()[1], stages=(stage,), init=lambda key: {"fitted": jnp.ones(1)})
    examples = source.Source(specs=SPECS, arrays=DATA, masks=MASKS)
    params, _ = stages.train(model, jax.random.key(0), {"train": examples, "validation": examples}, settings={})
    assert float(params["fitted"][0]) == 0
    for batch in given:
        assert set(batch) == {*NAMES, types.MASKS}
        jax.tree.map(np.testing.assert_array_equal, batch[types.MASKS], MASKS)


def test_nothing_observed_is_refused_by_name():
    _, model, params = built()
    for ask in (
        lambda: model.posterior_log_density(params, {}, jnp.zeros((1, DIM))),
        lambda: model.log_likelihood(params, jax.random.key(0), {}, num_importance=2),
    ):
        with pytest.raises(ValueError, match="Expected at least one observed modality"):
            ask()


def test_stage_1_counts_the_likelihoods_of_what_examples_have():
    parts, model, params = built()
    batch, key = {**DATA, types.MASKS: MASKS}, jax.random.key(3)
    posterior = jnf.encode_joint(parts, params, batch)
    z = distributions.gaussian_sample(key, posterior)
    decoded = model.decode(params, z)
    terms = {n: scipy.stats.norm(decoded[n], 0.5).logpdf(DATA[n]).sum(1) for n in NAMES}
    kl = 0.5 * (posterior.loc**2 + posterior.scale**2 - 1 - 2 * np.log(posterior.scale)).sum(1)
    expected = kl - sum(np.where(MASKS.get(n, True), term, 0) for n, term in terms.items())
    loss, metrics = jnf.joint_loss(parts, 1.0, params, key, batch)
    np.testing.assert_allclose(loss, expected.mean(), rtol=1e-6)
    np.testing.assert_allclose(metrics["log_likelihood/a"], terms["a"][MASKS["a"]].mean(), rtol=1e-6)


def test_the_joint_posterior_of_an_example_depends_on_which_modalities_it_has():
    parts, _, params = built()
    complete = jnf.encode_joint(parts, params, DATA)
    incomplete = jnf.encode_joint(parts, params, {**DATA, types.MASKS: MASKS})
    lacks = ~(MASKS["a"] & MASKS["c"])
    np.testing.assert_allclose(complete.loc[~lacks], incomplete.loc[~lacks], rtol=1e-9)
    assert (np.abs(complete.loc - incomplete.loc).max(1) > 1e-4)[lacks].all()


def test_batches_of_stage_2_are_unbiased_for_the_loss_of_all_examples_under_the_same_masks():
    parts, model, params = built()
    prepared = jnf.prepare_experts(parts, params, {**DATA, types.MASKS: MASKS})
    z = prepared["joint_posterior"].loc
    prepared["joint_posterior"] = types.Gaussian(z, jnp.full_like(z, 1e-12))  # without noise
    loss = lambda rows: jnf.expert_loss(parts, params, jax.random.key(0), jax.tree.map(lambda x: x[rows], prepared))[0]
    densities = {n: model.posterior_log_density(params, {n: DATA[n]}, z[None])[0] for n in NAMES}
    complete = -sum(np.where(MASKS.get(n, True), np.asarray(d), 0) for n, d in densities.items()).mean()
    np.testing.assert_allclose(loss(slice(None)), complete, rtol=1e-6)
    batches = np.random.default_rng(1).permutation(NUM).reshape(5, 8)
    np.testing.assert_allclose(np.mean([loss(rows) for rows in batches]), complete, rtol=1e-6)


def test_pairs_count_the_examples_that_have_both():
    there = MASKS["a"] & MASKS["c"]
    a, b = jnp.asarray(DATA["a"]), jnp.asarray(DATA["c"])
    np.testing.assert_allclose(
        dcca.correlations(a, b, regularisation=1e-3, there=jnp.asarray(there)),
        dcca.correlations(a[there], b[there], regularisation=1e-3),
        rtol=1e-9,
    )
    np.testing.assert_allclose(
        contrastive.nt_xent(a, b, 0.1, jnp.asarray(there)), contrastive.nt_xent(a[there], b[there], 0.1), rtol=1e-9
    )


def test_a_pair_that_no_example_has_is_worth_nothing():
    nowhere, a, b = jnp.zeros(NUM, bool), jnp.asarray(DATA["a"]), jnp.asarray(DATA["b"])
    for value in (
        lambda a: contrastive.nt_xent(a, b, 0.1, nowhere),
        lambda a: dcca.correlations(a, b, regularisation=1e-3, there=nowhere).sum(),
    ):
        np.testing.assert_allclose(value(a), 0, atol=1e-9)
        np.testing.assert_allclose(jax.grad(value)(a), 0, atol=1e-9)
