"""Where arrays live: a mesh of devices with an axis `data` and an axis `fsdp`.

Batches are split over both axes. Parameters and the optimiser's state are copied along `data`; along `fsdp` each large leaf is split, so that a
device holds a part of it. The devices of several processes make one mesh; then every process calls the same functions in the same order.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

DATA_AXIS = "data"
FSDP_AXIS = "fsdp"
_BATCH = (DATA_AXIS, FSDP_AXIS)
_SMALL = 2**14  # leaves of fewer numbers are copied: gathering them costs more than holding them


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layout:
    """The sizes of a mesh's axes.

    Attributes:
      data: devices along `data`; None: as many as there are.
      fsdp: devices that share one copy of the large parameters.
    """

    data: int | None = None
    fsdp: int = 1

    def __post_init__(self):
        for name in (DATA_AXIS, FSDP_AXIS):
            if (size := getattr(self, name)) is not None and size < 1:
                raise ValueError(f"Expected at least one device along {name!r}, got {size}.")


def parse(text: str) -> Layout:
    """Returns the layout that `data=8,fsdp=2` names; either may be left out.

    Raises:
      ValueError: if the text names something else.
    """
    sizes = {}
    for part in text.split(","):
        name, _, size = part.strip().partition("=")
        if name not in _BATCH or name in sizes or not size.isascii() or not size.isdigit():
            raise ValueError(f"Expected a mesh like data=8 or data=4,fsdp=2, got {text!r}.")
        sizes[name] = int(size)
    return Layout(**sizes)


def make_mesh(num_devices: int | None = None, *, fsdp: int = 1) -> Mesh:
    """Returns a mesh of `num_devices` (all where None) devices, `fsdp` of which share one copy of the large parameters.

    Axes are Auto: XLA's partitioner splits the program, and BlackJAX's loops stay untouched.

    Raises:
      ValueError: if there are not so many devices, `fsdp` does not divide their number, or a device of some process is left out.
    """
    devices = jax.devices()
    num = len(devices) if num_devices is None else num_devices
    if not 1 <= num <= len(devices):
        raise ValueError(f"Expected a mesh of 1 to {len(devices)} devices, those that there are, got {num}.")
    if num % fsdp:
        raise ValueError(f"Expected an fsdp axis that divides the {num} devices of the mesh, got {fsdp}.")
    if jax.process_count() > 1 and num != len(devices):
        raise ValueError(f"Expected a mesh of all {len(devices)} devices of the {jax.process_count()} processes, got {num}.")
    return jax.make_mesh((num // fsdp, fsdp), _BATCH, axis_types=(AxisType.Auto,) * 2, devices=devices[:num])


def mesh_for(batch_size: int) -> Mesh:
    """Returns the mesh of as many devices as divide a batch."""
    return make_mesh(max(n for n in range(1, len(jax.devices()) + 1) if batch_size % n == 0))


def mesh_of(layout: Layout) -> Mesh:
    """Returns the mesh of a layout; errors as in `make_mesh`."""
    return make_mesh(None if layout.data is None else layout.data * layout.fsdp, fsdp=layout.fsdp)


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding that copies an array to every device."""
    return NamedSharding(mesh, PartitionSpec())


def over_batch(mesh: Mesh, *, axis: int = 0) -> NamedSharding:
    """Returns the sharding that splits one axis over all devices."""
    return NamedSharding(mesh, PartitionSpec(*[None] * axis, _BATCH))


def of_state(mesh: Mesh, tree: Any) -> Any:
    """Returns a sharding for each leaf of parameters or of an optimiser's state.

    A leaf of 16,384 numbers or more is split along `fsdp`, on its largest axis that `fsdp` divides. Others are copied. The rule sees the shape alone:
    Adam's moments lie where their parameters do.
    """
    return jax.tree.map(lambda leaf: NamedSharding(mesh, _spec(mesh.shape[FSDP_AXIS], leaf.shape)), tree)


def _spec(fsdp: int, shape: tuple[int, ...]) -> PartitionSpec:
    fitting = [axis for axis, size in enumerate(shape) if size and size % fsdp == 0]
    if fsdp == 1 or np.prod(shape) < _SMALL or not fitting:
        return PartitionSpec()
    largest = max(fitting, key=lambda axis: shape[axis])
    return PartitionSpec(*[None] * largest, FSDP_AXIS)


def place(tree: Any, shardings: Any) -> Any:
    """Returns arrays of these shardings, one for all leaves or one for each.

    In several processes each has the whole tree, and gives its own devices their part; nothing is sent.
    """
    if jax.process_count() == 1:
        return jax.device_put(tree, shardings)
    if isinstance(shardings, NamedSharding):
        shardings = jax.tree.map(lambda leaf: shardings, tree)
    return jax.tree.map(_place, tree, shardings)


def _place(leaf: Any, sharding: NamedSharding) -> jax.Array:
    if isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(_place(jax.random.key_data(leaf), sharding), impl=jax.random.key_impl(leaf))
    if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
        return _moving_to(sharding)(leaf)
    leaf = np.asarray(leaf)
    return jax.make_array_from_callback(leaf.shape, sharding, lambda index: leaf[index])


def on_host(tree: Any) -> Any:
    """Returns the whole tree as numpy arrays, in every process, wherever its leaves lie."""
    return jax.device_get(jax.tree.map(_gathered, tree))


def _gathered(leaf: Any) -> Any:
    if not isinstance(leaf, jax.Array) or leaf.is_fully_addressable or leaf.is_fully_replicated:
        return leaf
    return _moving_to(replicated(leaf.sharding.mesh))(leaf)


@functools.lru_cache
def _moving_to(sharding: NamedSharding) -> Callable:
    """Returns what moves an array; one function for each sharding, so that a shape is compiled once."""
    return jax.jit(lambda x: x, out_shardings=sharding)


def check_batch(mesh: Mesh, batch_size: int) -> None:
    """Raises a ValueError unless the batch splits evenly over the devices."""
    if batch_size % mesh.size:
        below = batch_size - batch_size % mesh.size
        near = f"{below} or {below + mesh.size}" if below else f"{mesh.size} or {2 * mesh.size}"
        raise ValueError(
            f"Expected a batch size divisible by the {mesh.size} devices of the mesh, {near} for instance, got {batch_size}."
        )
