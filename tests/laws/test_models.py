import dataclasses
import functools

import compilations
import discover
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jnf_jax import configs, specs, subsets
from jnf_jax.flows import maf
from jnf_jax.marginals import flow as flow_marginal
from jnf_jax.marginals import mixture
from jnf_jax.networks import mlp
from jnf_jax.posteriors import hmc
from jnf_jax.training import fit, sharded, sharding, step

MODALITIES = {
    "image": specs.ModalitySpec(shape=(4, 4, 1), likelihood="laplace", scale=0.5, support=(0.0, 1.0)),
    "vector": specs.ModalitySpec(shape=(3,), likelihood="gaussian"),
    "bits": specs.ModalitySpec(shape=(5,), likelihood="bernoulli"),
    "word": specs.ModalitySpec(shape=(2,), likelihood="categorical", num_categories=3),
}
NUM = 16
SMALL = {
    "latent_dim": 3,
    "network": mlp.Config(hidden=(8,), activation="tanh"),
    "private_dim": 2,
    "joint_hidden": (8,),
    "condition_dim": 8,
    "condition_hidden": (8,),
    "message_dim": 8,
    "top_hidden": (8,),
    "skip_dim": 8,
    "block_hidden": (8,),
    "num_clusters": 2,
    "flow": maf.Config(hidden=(8,)),
    "marginal": mixture.Config(num_components=(2,)),
    "sampler": hmc.Config(num_warmup=20, num_chains=2, max_leapfrog_steps=3),
}


def small(module):
    fields = {f.name for f in dataclasses.fields(module.Config)}
    return module.Config(**{k: v for k, v in SMALL.items() if k in fields})


MODELS = [small(module) for module in discover.modules("models")]
MODELS += [  # and with all that has parameters of its own, where a model takes it: a projector (it cannot tell them apart), correlations
    dataclasses.replace(
        model,
        projector=discover.modules("projectors")[0].Config(dim=2),
        projected_hidden=(8,),
        joint_covariance="full",
        marginal=flow_marginal.Config(base=mixture.Config(num_components=(2,)), flow=maf.Config(hidden=(8,), widening=True)),
    )
    for model in MODELS
    if {"projector", "joint_covariance"} <= {f.name for f in dataclasses.fields(model)}
]


def label(config):
    projector = getattr(config, "projector", None)
    return discover.name(config) + (f" {discover.name(projector)}" if projector else "")


@pytest.fixture(scope="module", params=MODELS, ids=map(label, MODELS))
def model(request):
    return configs.build(request.param, MODALITIES)


@pytest.fixture(scope="module")
def params(model):
    return jax.jit(model.init)(jax.random.key(0))


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    return {
        "image": jnp.asarray(rng.integers(0, 256, (NUM, 4, 4, 1)), jnp.uint8),
        "vector": jnp.asarray(rng.normal(size=(NUM, 3))),
        "bits": jnp.asarray(rng.integers(0, 2, (NUM, 5))),
        "word": jnp.asarray(rng.integers(0, 3, (NUM, 2))),
    }


def trained(model):
    """The stages that have a loss."""
    return [stage for stage in model.stages if stage.loss is not None]


@functools.cache
def jitted(stage):
    return jax.jit(stage.loss)


def prepared(stage, params, batch):
    return batch if stage.prepare is None else stage.prepare(params, batch)


def test_losses_are_finite_scalars(model, params, batch):
    for stage in trained(model):
        loss, metrics = jitted(stage)(params, jax.random.key(1), prepared(stage, params, batch))
        assert loss.shape == ()
        assert jnp.isfinite(loss)
        assert all(jnp.isfinite(value) for value in metrics.values())


def check_trainable(stage, params, batch):
    """Every parameter that the stage owns is moved by its loss, and no other is."""
    data = prepared(stage, params, batch)
    gradients = jax.jit(jax.grad(lambda p: stage.loss(p, jax.random.key(1), data)[0]))(params)
    for path, gradient in jax.tree_util.tree_leaves_with_path(gradients):
        name = jax.tree_util.keystr(path)
        moved = bool(jnp.abs(gradient).max() > 0)
        assert moved == (path[0].key in stage.trainable), f"{name} {'moved' if moved else 'did not move'} in {stage.name}"


def test_a_stage_moves_all_that_it_owns_and_nothing_else(model, params, batch):
    for stage in trained(model):
        check_trainable(stage, params, batch)


FREEZING = [config for config in MODELS if trained(configs.build(config, MODALITIES))[-1].prepare is not None]
assert FREEZING


@pytest.mark.parametrize("config", FREEZING, ids=map(label, FREEZING))
def test_a_joint_encoder_that_is_not_frozen_is_seen(config, batch):
    """The mutant: the last stage's loss computes the joint posterior itself instead of being given it."""
    model = configs.build(config, MODALITIES)
    params = jax.jit(model.init)(jax.random.key(0))
    stage = trained(model)[-1]
    mutant = dataclasses.replace(
        stage, loss=lambda params, key, batch: stage.loss(params, key, stage.prepare(params, batch)), prepare=None
    )
    with pytest.raises(AssertionError, match=r"joint.* moved in"):
        check_trainable(mutant, params, batch)


def test_training_leaves_the_frozen_parts_alone_and_lowers_the_loss(model, params, batch):
    mesh = sharding.make_mesh(1)
    optimizer = optax.adam(1e-2)
    for stage in trained(model):
        data = prepared(stage, params, batch)
        call = step.make_train_call(stage, optimizer, mesh, batch_size=NUM, num_steps=50, total_steps=50)
        state = fit.initial_train_state(stage, params, optimizer)
        frozen = {name: value for name, value in params.items() if name not in stage.trainable}
        loss = jitted(stage)
        first, _ = loss(params, jax.random.key(2), data)
        state, _ = call(state, frozen, jax.random.key(1), data)
        assert int(state.failed_step) == -1
        last, _ = loss({**params, **state.trainable}, jax.random.key(2), data)
        assert last < first
        assert call._cache_size() == 1


def test_what_is_fitted_outright_keeps_its_shapes_and_changes_nothing_else(model, params, batch):
    data = {name: np.asarray(x) for name, x in batch.items()}
    for stage in model.stages:
        if stage.solve is None:
            continue
        found = stage.solve(params, jax.random.key(0), data, data)
        assert set(found) == set(stage.trainable)
        own = {name: params[name] for name in stage.trainable}
        assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), found) == jax.tree.map(
            lambda leaf: (leaf.shape, leaf.dtype), own
        )
        assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(found))


def check_codes(model, z, shape):
    """z is an array, or a pytree of arrays, of D numbers in all."""
    leaves = jax.tree.leaves(z)
    assert {leaf.shape[:-1] for leaf in leaves} == {shape}
    assert sum(leaf.shape[-1] for leaf in leaves) == model.latent_dim
    assert all(jnp.isfinite(leaf).all() for leaf in leaves)


def codes(model, params, shape):
    """Draws of the prior, leaves `[*shape, D]`."""
    z = model.sample_prior(params, jax.random.key(3), num_samples=int(np.prod(shape)))
    return jax.tree.map(lambda leaf: leaf.reshape(*shape, -1), z)


def test_every_subset_samples(model, params, batch):
    names = tuple(model.specs)
    for subset in [*subsets.proper(names), names]:
        observed = {name: batch[name] for name in subset}
        z, info = model.sample_posterior(params, jax.random.key(3), observed, num_samples=3)
        check_codes(model, z, (3, NUM))
        assert {leaf.shape for leaf in info} == {(NUM,)}
    check_codes(model, model.sample_prior(params, jax.random.key(3), num_samples=7), (7,))


def test_every_size_of_subset_has_a_density(model, params, batch):
    names = tuple(model.specs)
    z = codes(model, params, (3, NUM))
    for size in range(1, len(names) + 1):
        observed = {name: batch[name] for name in subsets.of_size(names, size)[-1]}
        log_density = jax.jit(functools.partial(model.posterior_log_density, params, observed))
        density = log_density(z)
        assert density.shape == (3, NUM)
        assert jnp.isfinite(density).all()
        one = jax.tree.map(lambda leaf: leaf[:, :1], z)  # one point for all observations
        shared = log_density(one)
        everywhere = jax.tree.map(lambda leaf, whole: jnp.broadcast_to(leaf, whole.shape), one, z)
        np.testing.assert_allclose(shared, log_density(everywhere), rtol=1e-4, atol=1e-4)


def test_the_order_of_the_observed_modalities_does_not_matter(model, params, batch):
    draw = lambda names: model.sample_posterior(params, jax.random.key(3), {n: batch[n] for n in names}, num_samples=3)[0]
    jax.tree.map(np.testing.assert_array_equal, draw(["bits", "image"]), draw(["image", "bits"]))


def test_the_product_is_compiled_once_for_each_number_of_experts(model, params, batch):
    names = tuple(model.specs)
    draw = lambda subset: model.sample_posterior(params, jax.random.key(0), {n: batch[n] for n in subset}, num_samples=3)
    sizes = [subsets.of_size(names, size) for size in range(2, len(names))]
    for subset in [*subsets.of_size(names, 1), *(same_size[0] for same_size in sizes)]:
        draw(subset)
    before = compilations.count()
    for subset in [subset for same_size in sizes for subset in same_size[1:]]:
        draw(subset)
        assert compilations.count() == before, f"{subset}: {compilations.count() - before} compilations"


def test_codes_of_another_dimension_are_named(model, params):
    one_less = jax.tree.map(lambda leaf: leaf[..., :-1], codes(model, params, (2,)))
    with pytest.raises(ValueError, match=rf"Expected z of {model.latent_dim} dimensions in all, got arrays of shape \[\(2, "):
        model.decode(params, one_less)
    with pytest.raises(ValueError, match=r"got arrays of shape \[\(\)"):
        model.decode(params, jax.tree.map(lambda leaf: leaf[0, 0], one_less))


def test_decoded_parameters_have_their_shapes(model, params):
    decoded = model.decode(params, codes(model, params, (2, 3)))
    assert {name: value.shape for name, value in decoded.items()} == {
        name: (2, 3, *spec.parameter_shape) for name, spec in model.specs.items()
    }
    assert decoded["image"].min() > 0
    assert decoded["image"].max() < 1


def test_the_importance_bound_lies_above_the_elbo(model, params, batch):
    elbo = jnp.stack([model.elbo(params, jax.random.key(i), batch) for i in range(50)]).mean(0)
    bound = model.log_likelihood(params, jax.random.key(0), batch, num_importance=500)
    assert bound.shape == (NUM,)
    assert (bound > elbo - 0.5).all()
    assert bound.mean() > elbo.mean()


@pytest.mark.parametrize(
    ("observed", "message"),
    [
        ({"imag": (NUM, 4, 4, 1)}, r"Expected modalities of .* got \['imag'\]"),
        ({"vector": (NUM, 4)}, r"'vector' of shape \(B, 3\), got \(16, 4\)"),
        ({"vector": (NUM, 3), "bits": (NUM + 1, 5)}, "as many observations"),
        ({"vector": (0, 3)}, "at least one observation, got {'vector': 0}"),
        ({}, "at least one observed"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_name(model, params, observed, message):
    with pytest.raises(ValueError, match=message):
        model.sample_posterior(params, jax.random.key(0), {k: jnp.zeros(v) for k, v in observed.items()}, num_samples=1)


def test_numbers_that_are_no_category_are_seen(model, params, batch):
    for value in (np.nan, 3.0, -1.0, 0.5):
        word = np.asarray(batch["word"], np.float32).copy()
        word[0, 0] = value
        z, info = model.sample_posterior(params, jax.random.key(3), {"word": word}, num_samples=2)
        assert info.improper[0], value
        assert not info.improper[1:].any()
        assert not all(bool(jnp.isfinite(leaf[:, 0]).all()) for leaf in jax.tree.leaves(z))


def test_keys_of_the_older_form_are_taken(model, params, batch):
    observed = {"vector": batch["vector"], "bits": batch["bits"]}
    draw = lambda key: model.sample_posterior(params, key, observed, num_samples=2)[0]
    jax.tree.map(np.testing.assert_array_equal, draw(jax.random.PRNGKey(0)), draw(jax.random.key(0)))


def test_lists_are_refused_everywhere(model, params, batch):
    observed = {"vector": batch["vector"].tolist(), "bits": batch["bits"]}
    key = jax.random.key(0)
    for whole in (model, sharded.over(model)):
        calls = [
            lambda whole=whole: whole.sample_posterior(params, key, observed, num_samples=2),
            lambda whole=whole: whole.log_likelihood(params, key, observed, num_importance=4),
            lambda whole=whole: whole.posterior_log_density(params, observed, codes(model, params, (3, NUM))),
            lambda whole=whole: whole.elbo(params, key, {**batch, "vector": observed["vector"]}),
        ]
        for call in calls:
            with pytest.raises(ValueError, match="an array for modality 'vector', got list"):
                call()


def test_a_model_knows_its_config(model, request):
    assert model.config == request.node.callspec.params["model"]
