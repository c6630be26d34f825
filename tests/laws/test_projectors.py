import discover
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jnf_jax import configs, specs
from jnf_jax.models import base as models
from jnf_jax.networks import mlp, modalities
from jnf_jax.training import fit, sharding

SPECS = {
    "image": specs.ModalitySpec(shape=(4, 4, 1), likelihood="laplace", support=(0.0, 1.0)),
    "vector": specs.ModalitySpec(shape=(3,)),
    "word": specs.ModalitySpec(shape=(2,), likelihood="categorical", num_categories=3),
}
NUM = 24
CONFIGS = [module.Config(dim=2) for module in discover.modules("projectors")]


@pytest.fixture(scope="module", params=CONFIGS, ids=map(discover.name, CONFIGS))
def projector(request):
    networks = modalities.build(SPECS, mlp.Config(hidden=(8,), activation="tanh"), {}, {})
    return configs.build(request.param, networks)


@pytest.fixture(scope="module")
def trained(projector):
    if projector.loss is None:
        pytest.skip("a projector of frozen features")
    return projector


@pytest.fixture(scope="module")
def params(projector):
    return jax.tree.map(lambda leaf: leaf.astype(jnp.float64), jax.jit(projector.init)(jax.random.key(0)))


def data(num=NUM):
    """Three views of one hidden number."""
    rng = np.random.default_rng(0)
    hidden = rng.uniform(size=num)
    return {
        "image": jnp.asarray(np.rint(255 * np.clip(hidden[:, None, None, None] + 0.1 * rng.normal(size=(num, 4, 4, 1)), 0, 1)), jnp.uint8),
        "vector": jnp.asarray(hidden[:, None] + 0.1 * rng.normal(size=(num, 3))),
        "word": jnp.asarray(np.stack([hidden * 3, rng.uniform(0, 3, num)], 1).astype(int)),
    }  # fmt: skip


def test_projections_are_rows(projector, params):
    for name, x in data().items():
        projected = projector.project(params, name, x)
        assert projected.shape == (NUM, 2)
        assert jnp.isfinite(projected).all()
        np.testing.assert_allclose(projector.project(params, name, x[3:5]), projected[3:5], rtol=1e-12)  # each row for itself


def test_the_loss_does_not_depend_on_the_order_of_the_batch(trained, params):
    order = np.random.default_rng(1).permutation(NUM)
    loss, metrics = trained.loss(params, jax.random.key(0), data())
    again, _ = trained.loss(params, jax.random.key(0), {name: x[order] for name, x in data().items()})
    np.testing.assert_allclose(loss, again, rtol=1e-10)
    assert all(jnp.isfinite(value) for value in metrics.values())
    if all("+" in name for name in metrics):  # one a pair
        assert len(metrics) == 3
        np.testing.assert_allclose(abs(sum(metrics.values())), abs(loss), rtol=1e-12)


def test_gradients_match_finite_differences(trained, params):
    batch = data()
    loss = lambda params: trained.loss(params, jax.random.key(0), batch)[0]
    flat, unravel = jax.flatten_util.ravel_pytree(params)
    value = jax.jit(lambda flat: loss(unravel(flat)))
    gradient = jax.grad(value)(flat)
    assert jnp.isfinite(gradient).all()
    for direction in np.random.default_rng(0).normal(size=(5, len(flat))):
        direction = direction / np.linalg.norm(direction)
        step = 1e-5
        slope = (value(flat + step * direction) - value(flat - step * direction)) / (2 * step)
        np.testing.assert_allclose(gradient @ direction, slope, rtol=1e-5, atol=1e-7)
    norms = jax.tree.map(lambda leaf: float(jnp.abs(leaf).max()), unravel(gradient))
    still = [jax.tree_util.keystr(path) for path, norm in jax.tree_util.tree_leaves_with_path(norms) if norm == 0]
    assert all("bias" in path for path in still)  # a shift of a projection changes no correlation


def test_training_raises_what_the_views_share(trained, params):
    stage = models.Stage(
        name="projector",
        trainable=("projector",),
        loss=lambda params, key, batch: trained.loss(params["projector"], key, batch),
        whole_batches=True,
    )
    config = fit.Config(num_steps=60, batch_size=48, steps_per_call=20, calls_per_validation=1, learning_rate=1e-2)
    losses = []
    for num_devices in (1, 4):  # correlations and negatives are the whole batch's, however many devices hold it
        reports = []
        fit.fit(
            stage, {"projector": params}, jax.random.key(1), data(200), data(100), config=config,
            mesh=sharding.make_mesh(num_devices), on_report=reports.append,
        )  # fmt: skip
        losses.append([report.validation_loss for report in reports])
        assert losses[-1][-1] < losses[-1][0] - 0.1
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-6)
    assert optax.tree.norm(params) > 0  # not donated
