import collections
import re

import compilations
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from jnf_jax.models import base
from jnf_jax.networks import convolution
from jnf_jax.training import fit, sharding, step

CONFIG = fit.Config(num_steps=50, batch_size=16, learning_rate=1e-2, steps_per_call=10, calls_per_validation=5)
COLLECTIVES = r"= (.*?) (all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(?:-start)?\("


def contrastive(params, key, batch):
    """A loss of the batch as a whole: every other example is a negative."""
    noise = 0.01 * jax.random.normal(key, batch["a"].shape)
    a, b = jnp.tanh((batch["a"] + noise) @ params["a"]["kernel"]), jnp.tanh(batch["b"] @ params["b"]["kernel"])
    logits = a @ b.T
    return -jnp.diag(jax.nn.log_softmax(logits)).mean(), {"largest": logits.max()}


STAGE = base.Stage(name="s", trainable=("a", "b"), loss=contrastive, whole_batches=True)


def data(num=64):
    rng = np.random.default_rng(0)
    return {"a": rng.normal(size=(num, 6)), "b": rng.normal(size=(num, 4))}


def parameters():
    rng = np.random.default_rng(1)
    return {"a": {"kernel": jnp.asarray(rng.normal(size=(6, 10)))}, "b": {"kernel": jnp.asarray(rng.normal(size=(4, 10)))}}


@pytest.mark.parametrize(
    ("text", "layout"),
    [
        ("data=8,fsdp=2", sharding.Layout(data=8, fsdp=2)),
        ("fsdp=2", sharding.Layout(fsdp=2)),
        (" data=4 ", sharding.Layout(data=4)),
    ],
)
def test_a_layout_is_read(text, layout):
    assert sharding.parse(text) == layout


@pytest.mark.parametrize("text", ["", "data", "data=", "data=-1", "data=2,data=2", "model=2", "data=2;fsdp=2", "data=²"])
def test_what_is_no_layout_is_refused(text):
    with pytest.raises(ValueError, match="Expected a mesh like"):
        sharding.parse(text)


def test_a_mesh_that_the_devices_do_not_make_is_refused():
    assert dict(sharding.mesh_of(sharding.parse("fsdp=2")).shape) == {"data": 2, "fsdp": 2}
    with pytest.raises(ValueError, match="mesh of 1 to 4 devices, those that there are, got 16"):
        sharding.mesh_of(sharding.parse("data=8,fsdp=2"))
    with pytest.raises(ValueError, match="fsdp axis that divides the 4 devices of the mesh, got 3"):
        sharding.mesh_of(sharding.parse("fsdp=3"))
    with pytest.raises(ValueError, match="at least one device along 'fsdp', got 0"):
        sharding.parse("fsdp=0")


@pytest.mark.parametrize(("size", "near"), [(6, "4 or 8"), (3, "4 or 8"), (130, "128 or 132")])
def test_the_two_nearest_batch_sizes_are_named(size, near):
    with pytest.raises(ValueError, match=f"4 devices of the mesh, {near} for instance, got {size}"):
        sharding.check_batch(sharding.make_mesh(4), size)


def test_large_leaves_are_split_on_their_largest_axis_that_fits():
    mesh = sharding.make_mesh(4, fsdp=2)
    tree = {
        "kernel": jnp.zeros((128, 256)),
        "tall": jnp.zeros((512, 255)),
        "odd": jnp.zeros((127, 255)),
        "small": jnp.zeros((2, 2)),
        "scalar": jnp.zeros(()),
    }
    found = {name: s.spec for name, s in sharding.of_state(mesh, tree).items()}
    assert found == {
        "kernel": PartitionSpec(None, "fsdp"),
        "tall": PartitionSpec("fsdp"),
        "odd": PartitionSpec(),
        "small": PartitionSpec(),
        "scalar": PartitionSpec(),
    }
    placed = sharding.place(tree, sharding.of_state(mesh, tree))
    assert placed["kernel"].addressable_shards[0].data.shape == (128, 128)
    jax.tree.map(np.testing.assert_array_equal, sharding.on_host(placed), tree)
    whole = sharding.of_state(sharding.make_mesh(4), tree)
    assert {s.spec for s in whole.values()} == {PartitionSpec()}


@pytest.fixture(scope="module")
def alone():
    return trained(sharding.make_mesh(1))


def trained(mesh):
    reports = []
    params, _ = fit.fit(
        STAGE, parameters(), jax.random.key(1), data(), data(32), config=CONFIG, mesh=mesh, on_report=reports.append
    )
    return params, [(r.loss, r.validation_loss) for r in reports if r.validation_loss is not None]


@pytest.mark.parametrize("fsdp", [1, 2])
def test_fifty_steps_are_the_same_on_four_devices_as_on_one(alone, fsdp, monkeypatch):
    monkeypatch.setattr(sharding, "_SMALL", 1)  # else nothing here is large enough to be split
    params, losses = trained(sharding.make_mesh(4, fsdp=fsdp))
    np.testing.assert_allclose(losses, alone[1], rtol=1e-7)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), params, alone[0])


def collectives(mesh):
    """The collective operations of a compiled call: kind -> for each, the sorted shapes of what it gives, as a layout may transpose them."""
    optimizer = fit.make_optimizer(CONFIG)
    call = step.make_train_call(STAGE, optimizer, mesh, batch_size=16, num_steps=5, total_steps=5)
    state = fit.initial_train_state(STAGE, parameters(), optimizer)
    state = sharding.place(state, sharding.of_state(mesh, state))
    rows, key = sharding.place((data(), jax.random.key(1)), sharding.replicated(mesh))
    text = call.lower(state, {}, key, rows).compile().as_text()
    found = collections.defaultdict(list)
    for shapes, kind in re.findall(COLLECTIVES, text):
        found[kind].append(sorted(sorted(filter(None, shape.split(","))) for shape in re.findall(r"f64\[([\d,]*)\]", shapes)))
    return found


def test_a_step_has_one_all_reduce_of_the_gradients():
    found = collectives(sharding.make_mesh(4))
    (gradients,) = [shapes for shapes in found["all-reduce"] if ["10", "6"] in shapes]
    assert ["10", "4"] in gradients


def test_no_data_are_gathered():
    """The contrastive loss gathers one view's features, `[16, 10]`; the rows themselves, `[16, 6]`, `[16, 4]` or of all 64, go nowhere."""
    found = collectives(sharding.make_mesh(4))
    moved = [shape for kind in found for shapes in found[kind] for shape in shapes if kind != "all-reduce"]
    assert all(shape in (["10", "16"], ["16"], []) for shape in moved), found


def test_convolutions_in_pieces_move_no_pictures_between_devices():
    mesh = sharding.make_mesh(4)
    batch, down, up = (96, 28, 28, 8), (4, 4, 8, 8), (4, 4, 8, 8)
    assert convolution._num_pieces(batch[0], np.prod(batch) * 4) > 1
    loss = lambda kernels, x: (convolution.double(convolution.halve(x, kernels[0]), kernels[1]) ** 2).sum()
    kernels = sharding.place((jnp.ones(down), jnp.ones(up)), sharding.replicated(mesh))
    x = jax.device_put(jnp.ones(batch), sharding.over_batch(mesh))
    text = jax.jit(jax.grad(loss)).lower(kernels, x).compile().as_text()
    assert {kind for _, kind in re.findall(COLLECTIVES, text)} == {"all-reduce"}


def test_one_device_has_no_collective():
    assert not collectives(sharding.make_mesh(1))


def test_moving_arrays_is_compiled_once_for_a_shape():
    mesh = sharding.make_mesh(4)
    arrays = [sharding.place(np.arange(8.0) + i, sharding.over_batch(mesh)) for i in range(2)]
    before = compilations.count()
    found = [sharding._moving_to(sharding.replicated(mesh))(array) for array in arrays]
    assert compilations.count() == before + 1
    np.testing.assert_array_equal(found[1], np.arange(8.0) + 1)


def test_split_parameters_are_gathered_and_their_states_are_not(monkeypatch):
    monkeypatch.setattr(sharding, "_SMALL", 1)
    found = collectives(sharding.make_mesh(4, fsdp=2))
    gathered = [shape for shapes in found["all-gather"] for shape in shapes]
    assert ["10", "6"] in gathered
    assert gathered.count(["10", "6"]) <= 2  # forwards and backwards; Adam's moments stay where they are


class Recorder:
    """Keeps every state as a checkpoint would, whole and on the host."""

    def __init__(self, start=None):
        self.states, self.start = [], start

    def latest(self, like):
        return self.start

    def save(self, state, **_):
        self.states.append(jax.tree.map(np.array, state))


def test_a_run_of_four_devices_continues_on_one(alone, monkeypatch):
    monkeypatch.setattr(sharding, "_SMALL", 1)
    run = lambda mesh, states, **options: fit.fit(
        STAGE, parameters(), jax.random.key(1), data(), data(32), config=CONFIG, mesh=mesh, checkpoints=states, **options
    )
    begun = Recorder()
    _, complete = run(sharding.make_mesh(4, fsdp=2), begun, should_stop=lambda: True)
    assert not complete
    assert int(begun.states[0].train.step) == 10
    params, complete = run(sharding.make_mesh(1), Recorder(start=begun.states[0]))
    assert complete
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), params, alone[0])
