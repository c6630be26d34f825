"""What JNF's settings do, what it refuses, and what it compiles."""

import dataclasses

import compilations
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from linear_models import gaussian_of, kl
from linear_views import LINEAR, MODALITIES, SCALE, check_mean, data, many

from jnf_jax import distributions, specs, subsets, types
from jnf_jax.flows import identity, maf
from jnf_jax.marginals import standard_normal
from jnf_jax.models import fitted, jnf
from jnf_jax.networks import mlp
from jnf_jax.posteriors import hmc, product, smc
from jnf_jax.projectors import base as projectors
from jnf_jax.projectors import contrastive


def test_rescaling_weighs_each_modality_by_the_largest_over_its_own_size():
    modalities = {"a": specs.ModalitySpec(shape=(2,)), "b": specs.ModalitySpec(shape=(8,))}
    base = jnf.Config(latent_dim=2, network=mlp.Config(hidden=()), joint_hidden=())

    plain, rescaled = (jnf.build(dataclasses.replace(base, rescale=r), modalities) for r in (False, True))
    params = jax.jit(plain.init)(jax.random.key(0))
    batch = {"a": jnp.ones((4, 2)), "b": jnp.ones((4, 8))}
    first, metrics = plain.stages[0].loss(params, jax.random.key(1), batch)
    second, _ = rescaled.stages[0].loss(params, jax.random.key(1), batch)
    np.testing.assert_allclose(second - first, -3 * metrics["log_likelihood/a"], rtol=1e-10)


def test_beta_weighs_the_kl_term():
    modalities = {name: specs.ModalitySpec(shape=(2,)) for name in "ab"}
    config = lambda beta: jnf.Config(latent_dim=2, network=mlp.Config(hidden=()), joint_hidden=(), beta=beta)
    batch = {name: jnp.ones((4, 2)) for name in "ab"}
    models = [jnf.build(config(beta), modalities) for beta in (1.0, 2.5)]
    params = jax.jit(models[0].init)(jax.random.key(0))
    (one, metrics), (two, _) = (model.stages[0].loss(params, jax.random.key(1), batch) for model in models)
    np.testing.assert_allclose(two - one, 1.5 * metrics["kl"], rtol=1e-10)


def test_beta_comes_down_by_equal_factors_and_then_stays():
    modalities = {name: specs.ModalitySpec(shape=(2,)) for name in "ab"}
    config = jnf.Config(latent_dim=2, network=mlp.Config(hidden=()), joint_hidden=(), initial_beta=16.0, annealing=0.5)
    model = jnf.build(config, modalities)
    stage = model.stages[0]
    params, key = jax.jit(model.init)(jax.random.key(0)), jax.random.key(1)
    batch = {name: jnp.ones((4, 2)) for name in "ab"}
    validated, metrics = stage.loss(params, key, batch)
    assert stage.annealing == 0.5
    for progress, beta in ((0.0, 16.0), (0.125, 8.0), (0.25, 4.0), (0.5, 1.0), (0.9, 1.0)):
        loss, found = stage.annealed(params, key, batch, jnp.asarray(progress))
        np.testing.assert_allclose(found["beta"], beta, rtol=1e-6)
        np.testing.assert_allclose(loss - validated, (beta - 1) * metrics["kl"], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beta": 0.0}, "positive beta"),
        ({"latent_dim": 0}, "latent dimension of at least 1"),
        ({"initial_beta": 0.0}, "positive initial_beta"),
        ({"precision": "float16"}, "jnf.precision, got 'float16'"),
        ({"initial_beta": 4.0, "annealing": 0.0}, r"annealing in \(0, 1\], got 4.0 and 0.0"),
    ],
)
def test_nonsense_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        jnf.build(jnf.Config(**options), {name: specs.ModalitySpec(shape=(2,)) for name in "ab"})


def test_an_observation_with_nan_shows_in_the_info_of_every_subset():
    names = ("a", "b", "c")
    config = jnf.Config(latent_dim=2, network=mlp.Config(hidden=(8,)), flow=maf.Config(hidden=(8,)))
    model = jnf.build(config, {n: specs.ModalitySpec(shape=(2,)) for n in names})
    params = model.init(jax.random.key(0))
    x = jnp.zeros((3, 2)).at[1, 0].set(jnp.nan)
    for size in (1, 2, 3):
        _, info = model.sample_posterior(params, jax.random.key(1), dict.fromkeys(names[:size], x), num_samples=4)
        assert info.improper.tolist() == [False, True, False]
        assert jnp.isnan(info.rhat).tolist() == [False, True, False]


def test_one_modality_is_refused():
    with pytest.raises(ValueError, match="at least two modalities"):
        jnf.build(jnf.Config(), {"a": specs.ModalitySpec(shape=(2,))})


def test_frozen_features_see_images_on_their_support():
    image = specs.ModalitySpec(shape=(6, 6, 1), support=(0.0, 1.0))
    kernel = jnp.ones((3, 3, 1, 2), jnp.float32)  # `lax.conv` takes floats alone
    convolved = lambda x: jax.lax.conv_general_dilated(x, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    features = projectors.given({name: lambda x: convolved(x).mean((1, 2)) for name in "ab"})
    config = jnf.Config(latent_dim=2, network=mlp.Config(hidden=()), projected_hidden=(8,), flow=identity.Config())
    model = jnf.build(config, {name: image for name in "ab"}, projector=features)
    params = jax.jit(model.init)(jax.random.key(0))
    white = jnp.full((3, 6, 6, 1), 255, jnp.uint8)
    np.testing.assert_allclose(model.project(params, "a", white), 9, rtol=1e-6)


def test_a_projector_is_trained_on_what_it_is_used_on():
    seen = {}

    def loss(params, key, batch):
        seen["trained"] = (batch["a"].dtype, float(batch["a"].max()))
        return params["scale"] * batch["a"].mean(), {}

    def project(params, name, x):
        seen["used"] = (x.dtype, float(x.max()))
        return params["scale"] * x.reshape(len(x), -1)

    own = projectors.Projector(init=lambda key: {"scale": jnp.ones(())}, project=project, loss=loss)
    image = specs.ModalitySpec(shape=(2, 2, 1), support=(0.0, 1.0))
    config = jnf.Config(latent_dim=2, network=mlp.Config(hidden=()), projected_hidden=(8,), flow=identity.Config())
    model = jnf.build(config, {name: image for name in "ab"}, projector=own)
    assert [(stage.name, stage.needs) for stage in model.stages] == [
        ("projector", ()), ("joint", ()), ("marginal", ("joint",)), ("experts", ("projector", "joint")),
        ("divisors", ("projector", "joint", "experts")),
    ]  # fmt: skip
    params, white = {"projector": {"scale": jnp.ones(())}}, jnp.full((3, 2, 2, 1), 255, jnp.uint8)
    with jax.disable_jit():
        model.stages[0].loss(params, jax.random.key(0), {"a": white, "b": white})
        model.project(params, "a", white)
    assert seen["trained"] == seen["used"]
    assert seen["used"][1] == 1


def test_one_dimension_has_no_correlations():
    config = jnf.Config(
        latent_dim=1, joint_covariance="full", network=mlp.Config(hidden=()), joint_hidden=(), flow=identity.Config()
    )
    model = jnf.build(config, {name: specs.ModalitySpec(shape=(2,)) for name in "ab"})
    assert all(
        leaf.size for leaf in jax.tree.leaves(jax.eval_shape(model.init, jax.random.key(0)))
    )  # Orbax saves no empty array


def test_stage_1_does_not_depend_on_the_fields_said_to_be_none_of_its():
    """Whatever the other fields, the same parameters give the same loss."""
    modalities = {name: specs.ModalitySpec(shape=(4,)) for name in "ab"}
    config = jnf.Config(latent_dim=2, network=mlp.Config(hidden=(8,)), joint_hidden=(8,), flow=maf.Config(hidden=(8,)))
    others = {
        "projector": contrastive.Config(dim=2),
        "projected_hidden": (4,),
        "flow": identity.Config(),
        "wide_experts": True,
        "marginal": standard_normal.Config(),
        "num_codes": 10,
        "product_rule": "prior",
        "sampler": hmc.Config(num_chains=2),
    }
    assert set(others) == set(jnf.Config.NOT_OF_STAGE["joint"])
    batch = {name: jnp.asarray(np.random.default_rng(i).normal(size=(5, 4))) for i, name in enumerate("ab")}
    model = jnf.build(config, modalities)
    params = jax.jit(model.init)(jax.random.key(0))
    loss = model.stages[0].loss(params, jax.random.key(1), batch)[0]
    other = jnf.build(dataclasses.replace(config, **others), modalities)
    changed = jax.jit(other.init)(jax.random.key(0))
    params = {**changed, "joint": params["joint"], "decoders": params["decoders"]}
    joint = next(stage for stage in other.stages if stage.name == "joint")
    np.testing.assert_array_equal(joint.loss(params, jax.random.key(1), batch)[0], loss)
    jax.tree.map(np.testing.assert_array_equal, changed["joint"], params["joint"])  # the same start as well


def test_frozen_features_of_ones_own_take_a_projectors_place():
    modalities = {name: specs.ModalitySpec(shape=(4,)) for name in "ab"}
    weight = np.random.default_rng(0).normal(size=(4, 3))
    features = projectors.given({"a": lambda x: x @ weight, "b": lambda x: x[:, :1]})
    config = jnf.Config(latent_dim=2, network=mlp.Config(hidden=()), projected_hidden=(8,), flow=identity.Config())
    model = jnf.build(config, modalities, projector=features)
    assert "projector" not in [stage.name for stage in model.stages]  # nothing to train
    params = jax.jit(model.init)(jax.random.key(0))
    x = jnp.asarray(np.random.default_rng(1).normal(size=(5, 4)))
    np.testing.assert_allclose(model.project(params, "a", x), x @ weight, rtol=1e-6)
    z, _ = model.sample_posterior(params, jax.random.key(1), {"b": x}, num_samples=3)
    again, _ = model.sample_posterior(params, jax.random.key(1), {"b": x.at[:, 1:].add(9.0)}, num_samples=3)
    np.testing.assert_array_equal(z, again)  # what the features drop, no draw can see
    with pytest.raises(ValueError, match=r"Expected features of modality 'b', got features of \['a'\]"):
        jax.eval_shape(jnf.build(config, modalities, projector=projectors.given({"a": lambda x: x})).init, jax.random.key(0))


def test_densities_normalisers_and_likelihoods_are_compiled_once_for_each_number_of_experts():
    modalities = {name: specs.ModalitySpec(shape=(2,)) for name in "abc"}
    small = {"latent_dim": 2, "network": mlp.Config(hidden=(4,)), "joint_hidden": (4,), "flow": identity.Config()}
    model = jnf.build(jnf.Config(**small), modalities)
    params = model.init(jax.random.key(0))
    batch = {name: jnp.ones((3, 2)) for name in modalities}
    config = smc.Config(num_particles=4, num_temperatures=2)

    def all_of(subset):
        observed = {name: batch[name] for name in subset}
        model.posterior_log_density(params, observed, jnp.zeros((1, 3, 2)))
        model.log_normaliser(params, jax.random.key(0), observed, config=config)
        model.log_likelihood(params, jax.random.key(0), observed, num_importance=2)

    for name in modalities:
        all_of((name,))
    first, *others = subsets.of_size(tuple(modalities), 2)
    all_of(first)
    before = compilations.count()
    for subset in others:
        all_of(subset)
    assert compilations.count() == before


def test_few_draws_are_the_first_of_many_by_the_same_program(monkeypatch):
    traced = []
    sample = product.sample
    monkeypatch.setattr(product, "sample", lambda *a, **o: traced.append(o["num_samples"]) or sample(*a, **o))
    modalities = {name: specs.ModalitySpec(shape=(2,)) for name in "abc"}
    config = jnf.Config(latent_dim=2, network=mlp.Config(hidden=(4,)), joint_hidden=(4,), flow=identity.Config())
    model = jnf.build(config, modalities)
    params = model.init(jax.random.key(0))
    draw = lambda num: model.sample_posterior(params, jax.random.key(1), dict.fromkeys("ab", jnp.ones((3, 2))), num_samples=num)
    many, info = draw(40)  # what four chains of ten draws keep
    few, of_few = draw(3)
    np.testing.assert_array_equal(few, many[:3])
    np.testing.assert_array_equal(of_few.rhat, info.rhat)
    assert traced == [40]
    assert len(draw(41)[0]) == 41
    assert traced == [40, 44]


def small(**options):
    """A JNF of three modalities in the plane, as initialised, and an observation of all."""
    modalities = {name: specs.ModalitySpec(shape=(2,)) for name in "abc"}
    config = jnf.Config(
        latent_dim=2, network=mlp.Config(hidden=(4,)), joint_hidden=(4,), flow=maf.Config(hidden=(4,)), **options
    )
    model = jnf.build(config, modalities)
    params = jax.jit(model.init)(jax.random.key(0))
    return model, params, {name: jax.random.normal(jax.random.key(i), (3, 2)) for i, name in enumerate(modalities)}


def some(observed, subset):
    return {name: observed[name] for name in subset}


def test_the_published_product_is_that_of_the_densities_of_its_modalities():
    model, params, observed = small(product_rule="prior", sampler=hmc.Config(outside=None))
    z = 2 * jax.random.normal(jax.random.key(9), (7, 3, 2))
    for subset in ("ab", "ac", "bc"):
        each = [np.asarray(model.posterior_log_density(params, some(observed, name), z)) for name in subset]
        expected = sum(each) - np.asarray(distributions.standard_normal_log_prob(z))
        found = np.asarray(model.posterior_log_density(params, some(observed, subset), z))
        np.testing.assert_allclose(found - found[:1], expected - expected[:1], rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("rule", ["prior", "pooled"])
def test_the_normaliser_is_what_the_density_integrates_to(rule):
    model, params, observed = small(product_rule=rule)
    side = np.linspace(-7, 7, 281)
    grid = np.stack(np.meshgrid(side, side, indexing="ij"), -1).reshape(-1, 1, 2)
    config = smc.Config(num_particles=4_000)
    for subset in ("ac", "bc"):
        given = some(observed, subset)
        log_density = np.asarray(model.posterior_log_density(params, given, jnp.asarray(grid)))
        exact = scipy.special.logsumexp(log_density, axis=0) + 2 * np.log(side[1] - side[0])
        assert np.abs(exact).max() > 0.5  # its sign is told
        found = model.log_normaliser(params, jax.random.key(3), given, config=config)
        np.testing.assert_allclose(found, exact, atol=0.05)


def test_the_wall_is_part_of_the_density():
    walled, params, observed = small()
    free = small(sampler=hmc.Config(outside=None))[0]
    z = jnp.asarray([[[0.5, -1.0]], [[9.0, 3.0]]])
    at = lambda model: np.asarray(model.posterior_log_density(params, some(observed, "ac"), z))
    expected = np.asarray(product.wall(z, hmc.Config().outside))
    np.testing.assert_allclose(at(free) - at(walled), np.broadcast_to(expected, (2, 3)), rtol=1e-6, atol=1e-8)
    assert expected[1, 0] > 1 > expected[0, 0] == 0


def test_draws_from_nothing_are_those_of_the_fitted_density(monkeypatch):
    """It is fitted to draws, not to means: the codes here have the variance 4 + 9."""
    model, params, _ = small(num_codes=4_000)
    rng = np.random.default_rng(0)
    examples = {name: 5 + 2 * rng.normal(size=(4_000, 2)) for name in "abc"}
    encode = lambda parts, params, batch: types.Gaussian(jnp.asarray(batch["a"]), jnp.full(batch["a"].shape, 3.0))
    monkeypatch.setattr(fitted.sampled, "encode_joint", encode)
    stage = next(stage for stage in model.stages if stage.name == "marginal")
    params = {**params, **stage.solve(params, jax.random.key(0), examples, examples)}
    z = np.asarray(model.sample_prior(params, jax.random.key(1), num_samples=40_000))
    np.testing.assert_allclose(z.mean(0), 5, atol=5 * np.sqrt(13 / 4_000))
    np.testing.assert_allclose(z.var(0), 13, atol=5 * 13 * np.sqrt(2 / 4_000))


@pytest.mark.parametrize("settings", [{}, {"beta": 3.0}, {"rescale": True}])
def test_the_elbo_is_unbiased_for_the_one_in_closed_form(settings):
    """At beta 1 and without rescaling, of linear networks."""
    config = jnf.Config(**LINEAR, joint_hidden=(), flow=identity.Config(), **settings)
    model = jnf.build(config, MODALITIES)
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), jax.jit(model.init)(jax.random.key(0)))
    mean, scale = gaussian_of(params["joint"]["head"], np.concatenate([data()[name] for name in MODALITIES], axis=1))
    expected = -kl((mean, scale))
    for name, x in data().items():
        dense = params["decoders"][name]["params"]["Dense_0"]
        error = x - mean @ dense["kernel"] - dense["bias"]
        spread = (scale**2 @ dense["kernel"] ** 2).sum(-1)
        expected -= 0.5 * ((error**2).sum(-1) + spread) / SCALE**2 + x.shape[1] * np.log(SCALE * np.sqrt(2 * np.pi))
    check_mean(many(lambda key: model.elbo(params, key, data()), 100_000), expected)
