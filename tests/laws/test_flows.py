import dataclasses
import functools

import discover
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jnf_jax import configs
from jnf_jax.flows import made

SMALL = {"hidden": (16, 16), "activation": "tanh"}


def variants():
    """Every flow found, with every value of its enumerated options."""
    for module in discover.modules("flows"):
        fields = {f.name for f in dataclasses.fields(module.Config)}
        usual = module.Config()
        config = dataclasses.replace(usual, **{k: v for k, v in SMALL.items() if type(getattr(usual, k, None)) is type(v)})
        if "bijection" in fields:
            yield from (dataclasses.replace(config, bijection=b) for b in ("affine", "spline"))
        elif "widening" in fields:
            yield from (dataclasses.replace(config, widening=w) for w in (False, True))
            yield dataclasses.replace(config, num_blocks=3, hidden=())  # the last coordinate comes first at the end
        else:
            yield config


def label(config):
    """A test's id."""
    linear = "" if getattr(config, "hidden", (1,)) else "-linear"
    return f"{discover.name(config)}{'-widening' if getattr(config, 'widening', False) else ''}{linear}"


FLOWS = list(variants())
WITH_PARAMETERS = [c for c in FLOWS if dataclasses.fields(c)]  # all but the identity
NARROW = [c for c in FLOWS if getattr(c, "widening", None) is False]
each_flow = pytest.mark.parametrize("config", FLOWS, ids=map(label, FLOWS))


@functools.cache
def built(config, dim, *, spread=0.3):
    """A flow with parameters far enough from their start that nothing is the identity by accident."""
    flow = configs.build(config, dim)
    leaves, tree = jax.tree.flatten(jax.jit(flow.init)(jax.random.key(0)))
    rng = np.random.default_rng(0)
    moved = [leaf + spread / np.sqrt(max(leaf.shape[:1], default=1)) * rng.normal(size=leaf.shape) for leaf in leaves]
    return flow, jax.tree.unflatten(tree, moved)


def points(dim, num=5, scale=1.5):
    return scale * jax.random.normal(jax.random.key(7), (num, dim))


def batched(transform, params):
    """The transform of many points at once, compiled."""
    return jax.jit(jax.vmap(lambda z: transform(params, z)))


@each_flow
@pytest.mark.parametrize("dim", [2, 5, 20])
def test_round_trip(config, dim):
    flow, params = built(config, dim)
    z = points(dim)
    u, log_det = batched(flow.forward, params)(z)
    back, inverse_log_det = batched(flow.inverse, params)(u)
    np.testing.assert_allclose(back, z, atol=1e-8)
    np.testing.assert_allclose(log_det + inverse_log_det, 0, atol=1e-8)


@each_flow
@pytest.mark.parametrize("direction", ["forward", "inverse"])
def test_log_det_matches_autodiff(config, direction):
    flow, params = built(config, 6)
    transform = getattr(flow, direction)
    jacobians = jax.jit(jax.vmap(jax.jacfwd(lambda z: transform(params, z)[0])))(points(6))
    np.testing.assert_allclose(batched(transform, params)(points(6))[1], np.linalg.slogdet(jacobians)[1], atol=1e-8)


@pytest.mark.parametrize("config", WITH_PARAMETERS, ids=map(label, WITH_PARAMETERS))
def test_a_flow_is_not_the_identity(config):
    flow, params = built(config, 4)
    u, _ = batched(flow.forward, params)(points(4))
    assert jnp.abs(jnp.sort(u) - jnp.sort(points(4))).max() > 1e-3


@each_flow
def test_gradients_are_finite_far_out(config):
    flow, params = built(config, 6)

    def log_density(params, z):
        u, log_det = flow.forward(params, z)
        return -0.5 * (u**2).sum() + log_det

    directions = jnp.concatenate([jnp.eye(6), points(6, scale=0.4)])
    far = jnp.concatenate([scale * directions for scale in (1.0, 10.0, 100.0)])
    gradients = jax.jit(jax.vmap(jax.grad(log_density, argnums=(0, 1)), in_axes=(None, 0)))(params, far)
    assert all(bool(jnp.isfinite(g).all()) for g in jax.tree.leaves(gradients))


@pytest.mark.parametrize("config", WITH_PARAMETERS, ids=map(label, WITH_PARAMETERS))
def test_every_parameter_receives_a_gradient(config):
    flow, params = built(config, 6)

    def loss(params):
        u, log_det = jax.vmap(lambda z: flow.forward(params, z))(points(6, num=30))
        return (u**2 * jnp.arange(1.0, 7.0)).sum() - log_det.sum()

    for path, gradient in jax.tree_util.tree_leaves_with_path(jax.jit(jax.grad(loss))(params)):
        assert jnp.abs(gradient).max() > 0, jax.tree_util.keystr(path)


@each_flow
def test_density_in_the_plane_integrates_to_one(config):
    flow, params = built(config, 2)
    side = jnp.linspace(-12, 12, 401)
    grid = jnp.stack(jnp.meshgrid(side, side), axis=-1).reshape(-1, 2)
    u, log_det = batched(flow.forward, params)(grid)
    log_density = -0.5 * (u**2).sum(-1) - jnp.log(2 * jnp.pi) + log_det
    total = jnp.exp(log_density).sum() * (side[1] - side[0]) ** 2
    np.testing.assert_allclose(total, 1, atol=5e-3)


@pytest.mark.parametrize("config", NARROW, ids=map(label, NARROW))
def test_far_out_the_base_is_as_far_unless_a_flow_may_widen(config):
    """What keeps products of experts proper: the density falls off at least as fast as its base Gaussian."""
    flow, params = built(config, 6)
    directions = jnp.concatenate([jnp.eye(6), -jnp.eye(6), points(6)])
    z = 1e4 * directions / jnp.linalg.norm(directions, axis=-1, keepdims=True)
    u, _ = batched(flow.forward, params)(z)
    assert jnp.linalg.norm(u, axis=-1).min() > 0.99e4


@pytest.mark.parametrize(("dim", "width"), [(5, 16), (40, 16), (300, 32)])
def test_made_outputs_depend_on_all_that_their_degrees_let_through(dim, width):
    """Output i may depend on inputs before i alone; it does where a hidden degree lies between, also with a width below dim."""
    params = made.init(jax.random.key(0), dim, (width, width), last_scale=1.0)
    z = jax.random.normal(jax.random.key(1), (dim,))
    jacobian = np.asarray(jax.jacobian(lambda z: made.apply(params, z, hidden=(width, width), activation="tanh")[0])(z))
    reachable = np.zeros((dim, dim), bool)
    for degree in made.degrees(dim, width):
        reachable |= (np.arange(1, dim + 1)[:, None] > degree) & (np.arange(1, dim + 1)[None, :] <= degree)
    np.testing.assert_array_equal(jacobian != 0, reachable)
    assert not np.triu(jacobian).any()
    assert reachable[-1, : dim - 1].all(), "the last output sees every input but the last"


@pytest.mark.parametrize("hidden", [(), (16,), (16, 16)])
def test_a_made_that_counts_dimensions_from_the_last_is_one_of_a_turned_point(hidden):
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: leaf + rng.normal(size=leaf.shape), made.init(jax.random.key(0), 5, hidden))
    z = jax.random.normal(jax.random.key(1), (5,))
    of = functools.partial(made.apply, params, hidden=hidden, activation="tanh")
    for found, expected in zip(of(z, backwards=True), of(z[::-1]), strict=True):
        np.testing.assert_allclose(found, expected[::-1], rtol=1e-8)
        assert abs(expected - expected[::-1]).max() > 0.1


def test_unknown_activation_is_refused():
    flow = configs.build(dataclasses.replace(WITH_PARAMETERS[0], activation="swish"), 3)
    with pytest.raises(ValueError, match="Expected an activation"):
        flow.forward(flow.init(jax.random.key(0)), jnp.zeros(3))


@pytest.mark.parametrize("bound", [1.0, 4.0, 15.0])
def test_a_log_scale_that_must_not_widen_is_the_bounded_softplus(bound):
    raw = np.concatenate([np.linspace(-40, 40, 401), [200.0, 1e6]])
    expected = -bound * np.tanh(np.logaddexp(0, np.minimum(raw, 82) - 2) / bound)
    of = functools.partial(made.log_scale, bound=bound, widening=False)
    found, slopes = jax.vmap(jax.value_and_grad(of))(jnp.asarray(raw, jnp.float32))
    np.testing.assert_allclose(found, expected, atol=2e-6 * bound)
    assert jnp.isfinite(slopes).all()
