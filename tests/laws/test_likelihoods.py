"""What every likelihood obeys."""

import contextlib
import dataclasses
import json

import discover
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jnf_jax import configs, distributions, specs, units
from jnf_jax.data import source

NUM = 20_000
SHAPE = (2, 3)
OWN = (*specs.LIKELIHOODS, "heteroscedastic", "zero_inflated")  # take every form
FIELDS = {
    "reals": ({"scale": 0.3}, {"scale": 0.3, "support": (-1.0, 3.0)}),
    "binary": ({},),
    "categories": ({"num_categories": 4},),
    "counts": ({},),
}


def examples(shape):
    """A spec of each likelihood, for each form that its values may have; one with a support alone, for instance, refuses the other."""
    for module in discover.modules("likelihoods"):
        config, made = module.Config(), []
        for fields in FIELDS[config.values]:
            library = {"library": 50.0} if config.given_total else {}
            spec = specs.ModalitySpec(shape=shape, likelihood=config, **fields, **library)
            with contextlib.suppress(ValueError):
                configs.build(config, spec)
                made.append(spec)
        least = len(FIELDS[config.values]) if module.__name__.rsplit(".", 1)[-1] in OWN else 1
        assert len(made) >= least, f"Expected {module.__name__} to take {least} of its forms, got {len(made)}."
        yield from made


SPECS = list(examples(SHAPE))
LABELS = [f"{spec.likelihood_name}{' with a support' if spec.support else ''}" for spec in SPECS]


@pytest.fixture(params=SPECS, ids=LABELS)
def spec(request):
    return request.param


def raw_outputs(spec, num=4):
    return jax.random.normal(jax.random.key(0), (num, *spec.parameter_shape))


def draw(spec, raw, num=NUM):
    """Draws `[S, B, *shape]`."""
    parameters = distributions.link(spec, raw)
    return jax.jit(jax.vmap(lambda key: distributions.sample(spec, key, parameters)))(jax.random.split(jax.random.key(1), num))


def test_a_name_is_that_of_a_file_whose_values_it_has():
    for name, values in specs.LIKELIHOODS.items():
        found = next(spec for spec in SPECS if spec.likelihood == name)  # a config that has a name is called by it
        assert found.likelihood_config.values == found.values == values


def test_a_spec_of_it_can_be_written_and_read(spec):
    assert configs.from_json(json.loads(json.dumps(configs.to_json(spec)))) == spec


def test_axes_before_the_modalitys_own_are_kept(spec):
    parameters = distributions.link(spec, raw_outputs(spec).reshape(2, 2, *spec.parameter_shape))
    assert parameters.shape == (2, 2, *spec.parameter_shape)
    x = distributions.sample(spec, jax.random.key(0), parameters)
    assert x.shape == distributions.mean(spec, parameters).shape == (2, 2, *SHAPE)
    assert distributions.log_likelihood(spec, parameters, x).shape == (2, 2)
    some = distributions.log_likelihood(spec, parameters[:, None], x[0])  # [2, 1, 2] parameters of [2] examples
    expected = distributions.log_likelihood(spec, parameters[0, 0], x[0, 0])
    np.testing.assert_allclose(some[0, 0, 0], expected, rtol=1e-6)


def test_draws_are_data_of_the_modality(spec):
    x = np.asarray(draw(spec, raw_outputs(spec), 50))[:, 0]
    if spec.support is not None:
        x = x.clip(*spec.support)  # reals are not cut off at its ends
    source.check_values("a", spec, x)


def test_the_mean_is_that_of_draws(spec):
    """Within 5 standard errors; of categories it is the one that is drawn most often."""
    raw = raw_outputs(spec)
    x, mean = (np.asarray(values) for values in (draw(spec, raw), distributions.mean(spec, distributions.link(spec, raw))))
    if spec.values == "categories":
        share = np.stack([(x == value).mean(0) for value in range(spec.num_categories)], axis=-1)
        assert (share.max(-1) - np.take_along_axis(share, mean[..., None], -1)[..., 0] < 5 / np.sqrt(NUM)).all()
    else:
        assert (np.abs(x.mean(0) - mean) < 5 * x.std(0) / np.sqrt(NUM)).all()


def single(spec):
    """The spec of one value, and its density at raw outputs `[B, ..]` and values `[N, 1]`, `[N, B]`."""
    one = dataclasses.replace(spec, shape=(1,))

    def density(raw, x):
        parameters = distributions.link(one, raw)
        value = jnp.exp(distributions.log_likelihood(one, parameters, jnp.asarray(x)[:, None]))
        return np.nan_to_num(np.asarray(value))  # a density may have no value where there are no data

    return one, density


def measured(spec):
    """All values that a modality of one may have, or points close enough, `[N, 1]`, and the length of what each stands for `[N]`."""
    match spec.values:
        case "reals":
            step = 1e-3 * np.arange(-30_000, 30_001)  # points of arsinh x, so that heavy tails are in
            return np.sinh(step)[:, None], 1e-3 * np.cosh(step)
        case "counts":
            return np.arange(100_000.0)[:, None], np.ones(100_000)
    number = spec.num_categories or 2
    return np.arange(number)[:, None], np.ones(number)


def test_the_density_of_one_value_is_normalised_and_that_of_its_draws(spec):
    """Its integral is 1, and of a function of values the mean over draws, within 5 standard errors.

    Counts given their total have one value alone where there is one count; their own tests take the total as it is drawn.
    """
    if spec.given_total:
        with pytest.raises(ValueError, match="Expected two or more counts"):
            dataclasses.replace(spec, shape=(1,))
        return
    one, density = single(spec)
    raw = raw_outputs(one)
    values, lengths = measured(one)
    weights = density(raw, values) * lengths[:, None]
    np.testing.assert_allclose(weights.sum(0), 1, rtol=1e-5)
    x = np.asarray(draw(one, raw))[..., 0]
    for function in (np.tanh, lambda x: np.sin(3 * x), lambda x: 1.0 * (x > 0.2), lambda x: 1.0 * (x == 1)):
        expected, square = ((function(values) ** power * weights).sum(0) for power in (1, 2))
        spread = np.sqrt(np.maximum(square - expected**2, 0))
        assert (np.abs(function(x).mean(0) - expected) <= 5 * spread / np.sqrt(NUM) + 1e-5).all()


def test_probabilities_of_categories_are_their_densities(spec):
    parameters = distributions.link(spec, raw_outputs(spec))
    if spec.values != "categories":
        with pytest.raises(ValueError, match="a modality of categories, got one of"):
            distributions.probabilities(spec, parameters)
        return
    found = np.asarray(distributions.probabilities(spec, parameters))
    assert found.shape == (4, *SHAPE, 4)
    np.testing.assert_allclose(found.sum(-1), 1, rtol=1e-6)
    x = np.asarray(distributions.mean(spec, parameters))
    likeliest = np.take_along_axis(found, x[..., None], -1)[..., 0]
    np.testing.assert_allclose(distributions.log_likelihood(spec, parameters, x), np.log(likeliest).sum((1, 2)), rtol=1e-6)
    np.testing.assert_array_equal(likeliest, found.max(-1))


@pytest.mark.parametrize("size", [0.0, 30.0, 1e4])
def test_gradients_are_finite_for_any_outputs_in_float32(spec, size):
    raw = raw_outputs(spec).astype(jnp.float32)
    x = draw(spec, raw, 1)[0]
    far = raw + size * jnp.sign(raw)
    value, gradient = jax.value_and_grad(
        lambda raw: distributions.log_likelihood(spec, distributions.link(spec, raw), x).sum()
    )(far)
    assert value.dtype == jnp.float32
    assert jnp.isfinite(value)
    assert jnp.isfinite(gradient).all()
    assert jnp.isfinite(distributions.mean(spec, distributions.link(spec, far)).astype(jnp.float32)).all()


def test_reals_may_be_standardised(spec):
    given = {"mean": (1.0,) * 6, "deviation": (2.0,) * 6}
    fields = {name: getattr(spec, name) for name in ("scale", "support", "num_categories", "library")}
    if spec.may_be_standardised:
        made = specs.ModalitySpec(shape=SHAPE, likelihood=spec.likelihood, **fields, **given)
        np.testing.assert_allclose(units.original(made, np.ones((1, *SHAPE))), 3)
    else:
        with pytest.raises(ValueError, match="a mean for unbounded real values alone"):
            specs.ModalitySpec(shape=SHAPE, likelihood=spec.likelihood, **fields, **given)
