import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
import sklearn.cross_decomposition

from jnf_jax import specs
from jnf_jax.networks import mlp, modalities
from jnf_jax.projectors import dcca


def views(num=400, dim=3, seed=0):
    """Two linear views of a common part, with noise of their own."""
    rng = np.random.default_rng(seed)
    common = rng.normal(size=(num, dim))
    return tuple((common + s * rng.normal(size=(num, dim))) @ rng.normal(size=(dim, dim)) for s in (0.3, 1.0))


def test_scikit_learns_canonical_correlations():
    a, b = views()
    cca = sklearn.cross_decomposition.CCA(n_components=3, max_iter=10_000, tol=1e-12).fit(a, b)
    first, second = cca.transform(a, b)
    expected = [np.corrcoef(first[:, i], second[:, i])[0, 1] for i in range(3)]
    found = dcca.correlations(jnp.asarray(a), jnp.asarray(b), regularisation=1e-12)
    np.testing.assert_allclose(found, np.sort(expected)[::-1], atol=1e-6)


def test_the_definition_with_symmetric_roots():
    a, b = views()
    centred = [x - x.mean(0) for x in (a, b)]
    s11, s22 = (x.T @ x / (len(a) - 1) + 0.1 * np.eye(3) for x in centred)
    s12 = centred[0].T @ centred[1] / (len(a) - 1)
    whitened = np.linalg.inv(scipy.linalg.sqrtm(s11)) @ s12 @ np.linalg.inv(scipy.linalg.sqrtm(s22))
    found = dcca.correlations(jnp.asarray(a), jnp.asarray(b), regularisation=0.1)
    np.testing.assert_allclose(found, np.linalg.svd(whitened)[1], rtol=1e-9)


def test_they_do_not_change_under_linear_maps():
    a, b = views()
    map_ = np.random.default_rng(1).normal(size=(3, 3))
    one = dcca.correlations(jnp.asarray(a), jnp.asarray(b), regularisation=1e-12)
    other = dcca.correlations(jnp.asarray(a @ map_ + 5.0), jnp.asarray(b), regularisation=1e-12)
    np.testing.assert_allclose(one, other, rtol=1e-8)


@pytest.mark.parametrize("kind", ["equal views", "collapsed", "independent"])
def test_gradients_are_finite_where_singular_values_tie(kind):
    a, b = map(jnp.asarray, views())
    a, b = {"equal views": (a, a), "collapsed": (0 * a, 0 * b), "independent": (a, b)}[kind]
    gradient = jax.grad(lambda a: dcca.correlations(a, b, regularisation=1e-3)[:2].sum())(a)
    assert jnp.isfinite(gradient).all()


def test_half_precision_is_lifted():
    a, b = (jnp.asarray(x, jnp.bfloat16) for x in views())
    assert dcca.correlations(a, b, regularisation=1e-3).dtype == jnp.float32


def test_one_factorisation_serves_all_pairs():
    names = ["a", "b", "c", "d"]
    networks = modalities.build(dict.fromkeys(names, specs.ModalitySpec(shape=(5,))), mlp.Config(hidden=(8,)), {}, {})
    projector = dcca.build(dcca.Config(dim=3, top=2), networks)
    params = projector.init(jax.random.key(0))
    batch = {name: jax.random.normal(jax.random.key(i), (40, 5)) for i, name in enumerate(names)}
    compute = lambda params: projector.loss(params, jax.random.key(1), batch)
    assert str(jax.make_jaxpr(compute)(params)).count("= svd[") == 1
    loss, metrics = compute(params)
    projected = {name: projector.project(params, name, batch[name]) for name in names}
    for pair, value in metrics.items():
        one, other = pair.removeprefix("correlation/").split("+")
        expected = dcca.correlations(projected[one], projected[other], regularisation=1e-3)[:2].sum()
        np.testing.assert_allclose(value, expected, rtol=1e-5)
    assert len(metrics) == 6
    np.testing.assert_allclose(loss, -sum(metrics.values()), rtol=1e-6)


def test_a_batch_too_small_is_refused():
    with pytest.raises(ValueError, match="more than 3 examples for 3 correlations, got 3"):
        dcca.correlations(jnp.ones((3, 3)), jnp.ones((3, 3)), regularisation=1e-3)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"dim": 0}, "at least 1 dimension"), ({"dim": 3, "top": 4}, "1 to 3 correlations, got 4"), ({"regularisation": 0.0}, "positive")],
)  # fmt: skip
def test_nonsense_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        dcca.Config(**options)


@pytest.mark.parametrize("num", [0, 1, 2, 5, 9])
def test_too_few_complete_examples_have_no_correlations(num):
    a, b = (jnp.asarray(x) for x in np.random.default_rng(0).normal(size=(2, 500, 9)))
    there = jnp.arange(500) < num
    of = lambda a: dcca.correlations(a, b, regularisation=1e-3, there=there).sum()
    assert of(a) == 0
    assert not jax.grad(of)(a).any()
