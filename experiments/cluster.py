"""Several devices and several processes: what the command line says of them, and JAX's distributed runtime.

    --mesh data=8,fsdp=2            axes of the mesh of devices; all of them along `data` where not given
    --batch-per-device 32           in place of the stages' batch sizes, which count all devices
    --coordinator host:port --num-processes N --process-id I [--heartbeat 60]
    --distributed                   JAX finds the other processes, on hosts that do not tell by their environment, as TPU VMs

Without these flags, processes that SLURM, Open MPI or a TPU pod started together find each other by JAX's own detection. One that is alone on its
host takes all of the host's devices, others take the one of their number there.
"""

import argparse
import contextlib
import dataclasses
import os
import pathlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

import jax
from jax.sharding import Mesh

from experiments import experiment, run_folder
from jnf_jax.training import fit, processes, sharding

_HEARTBEAT = 60  # seconds after which a silent process is taken for dead
_COUNTS = ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE")
_LOCAL_COUNTS = ("SLURM_STEP_TASKS_PER_NODE", "OMPI_COMM_WORLD_LOCAL_SIZE")  # `1(x2)`: one task on each of two nodes


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of this page."""
    parser.add_argument(
        "--mesh", help="axes of the mesh of devices, data=4,fsdp=2 for instance; all along data where not given"
    )
    parser.add_argument(
        "--batch-per-device", type=int, help="examples per device and step, in place of the stages' batch sizes"
    )
    parser.add_argument("--coordinator", help="host:port of the first of several processes")
    parser.add_argument("--num-processes", type=int, help="how many processes there are")
    parser.add_argument("--process-id", type=int, help="the number of this one, from 0")
    parser.add_argument(
        "--distributed", action="store_true", help="lets JAX find the other processes, on several TPU VMs for instance"
    )
    parser.add_argument(
        "--heartbeat", type=int, default=_HEARTBEAT, help="seconds after which a silent process ends the others"
    )


def initialize(arguments: argparse.Namespace) -> None:
    """Joins this process with the others of the command line, or of the cluster, if there are any.

    Called before anything asks for devices.

    Raises:
      ValueError: if some of the flags are missing or make no sense, or JAX finds no others.
    """
    options: dict[str, Any] = {"heartbeat_timeout_seconds": arguments.heartbeat}
    if is_alone_on_its_host(os.environ):
        options["local_device_ids"] = []  # all; JAX would take the first
    named = {name: getattr(arguments, name) for name in ("coordinator", "num_processes", "process_id")}
    given = {name: value for name, value in named.items() if value is not None}
    if given and len(given) < len(named):
        missing = ", ".join(f"--{name.replace('_', '-')}" for name in named if name not in given)
        raise ValueError(f"Expected --coordinator, --num-processes and --process-id together, got no {missing}.")
    if arguments.heartbeat < 1:
        raise ValueError(f"Expected a --heartbeat of at least 1 second, got {arguments.heartbeat}.")
    if not given:
        if arguments.distributed or is_cluster(os.environ):
            try:
                jax.distributed.initialize(**options)
            except ValueError as error:
                raise ValueError(
                    f"Expected processes that JAX can find, got none ({error}): give --coordinator, --num-processes and --process-id."
                ) from error
        return
    host, _, port = arguments.coordinator.rpartition(":")
    if not host or not port.isdigit():
        raise ValueError(f"Expected a --coordinator of the form host:port, got {arguments.coordinator!r}.")
    if not 0 <= arguments.process_id < arguments.num_processes:
        raise ValueError(
            f"Expected a --process-id from 0 to {arguments.num_processes - 1}, below --num-processes, got {arguments.process_id}."
        )
    if arguments.num_processes > 1:
        jax.distributed.initialize(
            arguments.coordinator,
            arguments.num_processes,
            arguments.process_id,
            **options,
        )


def is_cluster(environment: Mapping[str, str]) -> bool:
    """Returns whether several processes were started together; JAX then finds out which this one is."""
    if any(int(environment.get(name) or 1) > 1 for name in _COUNTS):
        return True
    return "," in environment.get("TPU_WORKER_HOSTNAMES", "")


def is_alone_on_its_host(environment: Mapping[str, str]) -> bool:
    """Returns whether a cluster started one process on every host, and nobody said which devices it has."""
    told = [environment[name] for name in _LOCAL_COUNTS if name in environment]
    alone = [re.fullmatch(r"1(\(x\d+\))?", count) is not None for count in told]
    return bool(alone) and all(alone) and "JAX_LOCAL_DEVICE_IDS" not in environment


@contextlib.contextmanager
def lease(workdir: pathlib.Path) -> Iterator[None]:
    """Holds the run's folder for all processes, of which the first writes there; errors as in `run_folder.lease`."""
    with contextlib.ExitStack() as stack:
        processes.from_first(lambda: stack.enter_context(run_folder.lease(workdir)))
        yield


def mesh(arguments: argparse.Namespace) -> Mesh:
    """Returns the mesh that the flags name; errors as in `sharding.make_mesh`."""
    return sharding.mesh_of(sharding.Layout() if arguments.mesh is None else sharding.parse(arguments.mesh))


def with_batch(config: experiment.Config, mesh: Mesh, arguments: argparse.Namespace) -> experiment.Config:
    """Returns the config with `--batch-per-device` times the number of devices for a batch size, if it was given.

    Raises:
      ValueError: if it is not positive.
    """
    per_device = arguments.batch_per_device
    if per_device is None:
        return config
    if per_device < 1:
        raise ValueError(f"Expected a --batch-per-device of at least 1, got {per_device}.")
    resized: dict[str, fit.Config] = {
        name: dataclasses.replace(stage, batch_size=per_device * mesh.size) for name, stage in config.training.items()
    }
    return dataclasses.replace(config, training=resized)
