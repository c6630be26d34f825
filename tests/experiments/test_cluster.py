import argparse
import dataclasses
import os

import jax
import pytest
from jax._src import clusters

from experiments import cluster, experiment
from jnf_jax.training import processes, sharding


def parsed(*arguments):
    parser = argparse.ArgumentParser()
    cluster.add_flags(parser)
    return parser.parse_args(arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--coordinator", "here:1"], "together, got no --num-processes, --process-id"),
        (["--num-processes", "2", "--process-id", "0"], "together, got no --coordinator"),
        (["--coordinator", "here", "--num-processes", "2", "--process-id", "0"], "form host:port, got 'here'"),
        (["--coordinator", "here:1", "--num-processes", "2", "--process-id", "2"], "from 0 to 1, below --num-processes, got 2"),
        (["--heartbeat", "0"], "--heartbeat of at least 1 second, got 0"),
    ],
)
def test_flags_that_make_no_sense_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        cluster.initialize(parsed(*arguments))


def test_jax_is_asked_for_the_others_where_nothing_tells_of_them(monkeypatch):
    joined = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda *args, **options: joined.append(options))
    cluster.initialize(parsed())
    assert joined == []
    cluster.initialize(parsed("--distributed"))
    assert joined == [{"heartbeat_timeout_seconds": 60}]


@pytest.mark.parametrize(
    ("environment", "alone"),
    [
        ({}, False),
        ({"SLURM_STEP_TASKS_PER_NODE": "1(x2)"}, True),
        ({"SLURM_STEP_TASKS_PER_NODE": "1"}, True),
        ({"SLURM_STEP_TASKS_PER_NODE": "4(x2)"}, False),
        ({"SLURM_STEP_TASKS_PER_NODE": "1,2"}, False),
        ({"OMPI_COMM_WORLD_LOCAL_SIZE": "1"}, True),
        ({"OMPI_COMM_WORLD_LOCAL_SIZE": "8"}, False),
        ({"SLURM_STEP_TASKS_PER_NODE": "1(x2)", "JAX_LOCAL_DEVICE_IDS": "0,1"}, False),
    ],
)
def test_a_process_that_is_alone_on_its_host_takes_all_of_its_devices(monkeypatch, environment, alone):
    assert cluster.is_alone_on_its_host(environment) == alone
    started = {
        "SLURM_JOB_ID": "7", "SLURM_NTASKS": "2", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_STEP_NODELIST": "n1,n2",
        "SLURM_STEP_NUM_TASKS": "2",
    }  # fmt: skip
    for name, value in (started | environment).items():
        monkeypatch.setenv(name, value)
    visible = []
    monkeypatch.setattr(jax.distributed, "initialize", _detected(visible))
    cluster.initialize(parsed())
    assert visible == [[0, 1] if "JAX_LOCAL_DEVICE_IDS" in environment else [] if alone else [0]]


def _detected(visible):
    """What JAX's own detection makes of the arguments; no devices: all are visible."""

    def initialize(address=None, num=None, number=None, local_device_ids=None, **options):
        if local_device_ids is None and "JAX_LOCAL_DEVICE_IDS" in os.environ:
            local_device_ids = [int(i) for i in os.environ["JAX_LOCAL_DEVICE_IDS"].split(",")]
        detect = clusters.ClusterEnv.auto_detect_unset_distributed_params
        *others, found = detect(address, num, number, local_device_ids, None, 1)
        assert others[1:] == [2, 0]
        visible.append(found)

    return initialize


def test_nobody_to_be_found_is_one_clear_error(monkeypatch):
    def initialize(**options):
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    with pytest.raises(ValueError, match=r"processes that JAX can find, got none \(coordinator.*\): give --coordinator"):
        cluster.initialize(parsed("--distributed"))


def test_processes_that_were_never_joined_are_told_apart_from_joined_ones(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(ValueError, match="Expected 2 processes joined by"):
        processes.meet()


def test_one_process_joins_nobody():
    cluster.initialize(parsed())
    cluster.initialize(parsed("--coordinator", "here:1", "--num-processes", "1", "--process-id", "0"))
    assert not jax.distributed.is_initialized()


@pytest.mark.parametrize(
    ("environment", "several"),
    [
        ({}, False),
        ({"SLURM_JOB_ID": "1", "SLURM_STEP_NUM_TASKS": "1"}, False),
        ({"SLURM_JOB_ID": "1", "SLURM_STEP_NUM_TASKS": "4"}, True),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, True),
        ({"KUBERNETES_SERVICE_HOST": "h"}, False),
        ({"KUBERNETES_SERVICE_HOST": "h", "JOB_COMPLETION_INDEX": "0"}, False),  # it may be one seed of many
        ({"TPU_WORKER_HOSTNAMES": "a"}, False),
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, True),
    ],
)
def test_a_cluster_is_known_by_what_it_sets(environment, several):
    assert cluster.is_cluster(environment) == several


def test_the_batch_of_a_device_is_multiplied():
    config = experiment.find("linear_gaussian/jnf")
    mesh = sharding.make_mesh(4)
    assert cluster.with_batch(config, mesh, parsed()) is config
    larger = cluster.with_batch(config, mesh, parsed("--batch-per-device", "24"))
    assert {stage.batch_size for stage in larger.training.values()} == {96}
    assert dataclasses.replace(larger, training=config.training) == config
    with pytest.raises(ValueError, match="--batch-per-device of at least 1, got 0"):
        cluster.with_batch(config, mesh, parsed("--batch-per-device", "0"))


def test_a_mesh_is_that_of_the_flag():
    assert dict(cluster.mesh(parsed("--mesh", "data=2,fsdp=2")).shape) == {"data": 2, "fsdp": 2}
    assert cluster.mesh(parsed()).size == 4
