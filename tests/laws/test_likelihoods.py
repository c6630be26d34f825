"""What every likelihood obeys."""

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
FIELDS = {
    "reals": ({"scale": 0.3}, {"scale": 0.3, "support": (-1.0, 3.0)}),
    "binary": ({},),
    "categories": ({"num_categories": 4},),
}


def examples():
    """A spec of each likelihood, for each form that its values may have."""
    for module in discover.modules("likelihoods"):
        for fields in FIELDS.get(module.Config.values) or [{"library": 50.0} if takes_totals(module.Config()) else {}]:
            yield specs.ModalitySpec(shape=SHAPE, likelihood=module.Config(), **fields)


def takes_totals(config):
    """Whether it refuses a spec without a library."""
    try:
        distributions.mean(specs.ModalitySpec(shape=(1,), likelihood=config), jnp.zeros((1, 9)))
    except ValueError as error:
        return "a library" in str(error)
    return False


SPECS = list(examples())
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


def test_the_density_is_that_of_draws(spec):
    """The expectation of the gradient of a log density is 0, and its variance the expected curvature, for a normalised one alone.

    Both within 5 standard errors. A likelihood that takes an example's own total, where draws have the library's, has its own tests.
    """
    if spec.library is not None:
        return
    raw = raw_outputs(spec, num=1)
    density = lambda raw, x: distributions.log_likelihood(spec, distributions.link(spec, raw), x)
    direction = jax.random.normal(jax.random.key(2), raw.shape)
    along = lambda step, x: density(raw + step * direction, x)[0]
    x = draw(spec, raw)
    if spec.likelihood == "laplace":  # its curvature is all in one point
        slopes = np.asarray(jax.vmap(jax.grad(along), (None, 0))(0.0, x))
        assert abs(slopes.mean()) < 5 * slopes.std() / np.sqrt(NUM)
        return
    slopes, curvatures = (np.asarray(jax.vmap(f, (None, 0))(0.0, x)) for f in (jax.grad(along), jax.grad(jax.grad(along))))
    assert slopes.std() > 0.1
    for values in (slopes, slopes**2 + curvatures):
        assert abs(values.mean()) < 5 * values.std() / np.sqrt(NUM)


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
    if spec.values == "reals" and spec.support is None:
        made = specs.ModalitySpec(shape=SHAPE, likelihood=spec.likelihood, **fields, **given)
        np.testing.assert_allclose(units.original(made, np.ones((1, *SHAPE))), 3)
    else:
        with pytest.raises(ValueError, match="a mean for unbounded real values alone"):
            specs.ModalitySpec(shape=SHAPE, likelihood=spec.likelihood, **fields, **given)
