"""Where arrays live: a mesh of all devices with one axis, `data`, on which batches are split and everything else is copied."""

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

DATA_AXIS = "data"


def make_mesh(num_devices: int | None = None) -> Mesh:
    """Returns a mesh of `num_devices` (all where None) devices.

    Axes are Auto: XLA's partitioner splits the program, and BlackJAX's loops stay untouched.
    """
    devices = jax.devices()[:num_devices]
    return jax.make_mesh((len(devices),), (DATA_AXIS,), axis_types=(AxisType.Auto,), devices=devices)


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding that copies an array to every device."""
    return NamedSharding(mesh, PartitionSpec())


def over_batch(mesh: Mesh) -> NamedSharding:
    """Returns the sharding that splits the leading axis over the devices."""
    return NamedSharding(mesh, PartitionSpec(DATA_AXIS))


def check_batch(mesh: Mesh, batch_size: int) -> None:
    """Raises a ValueError unless the batch splits evenly over the devices."""
    if batch_size % mesh.size:
        below = batch_size - batch_size % mesh.size
        near = f"{below} or {below + mesh.size}" if below else f"{mesh.size}"
        raise ValueError(
            f"Expected a batch size divisible by the {mesh.size} devices of the mesh, {near} for instance, got {batch_size}."
        )
