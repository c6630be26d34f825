"""Weak scaling: the rate of training where every device has the same work, in one process and in two.

    python -m experiments.benchmarks.scaling [--output scaling.json]

Runs the first stage of polydigits/jnf as a user does, 64 examples a device and step. One device on one core is the measure of all: a layout on c cores is efficient
as far as it trains c times as many examples a second. Devices are XLA's forced ones, and the processes meet through gloo.
"""

import dataclasses
import json
import os
import pathlib
import socket
import statistics
import subprocess
import sys
import tempfile
import time

import tyro

from experiments.benchmarks import run

_ROOT = pathlib.Path(__file__).parents[2]
_PER_DEVICE = 64
_STEPS_PER_ROW = 10


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Measures weak scaling.

    Attributes:
      output: where the results go.
      experiment: what is trained.
      num_rows: calls of ten steps that are timed, in each layout; the first one is left out.
    """

    output: pathlib.Path = pathlib.Path(__file__).parent / "scaling.json"
    experiment: str = "polydigits/jnf"
    num_rows: int = 12


@dataclasses.dataclass(frozen=True)
class Layout:
    """So many processes with so many devices and cores each; they share the cores where they train together."""

    processes: int
    cores: int
    devices: int
    together: bool = True  # or runs of their own side by side, which says what the cores themselves lose

    def __str__(self) -> str:
        return f"{'' if self.together else 'apart: '}{self.processes} process(es) x {self.devices} device(s), {self.cores} core(s) each"


LAYOUTS = (Layout(1, 1, 1), Layout(2, 1, 1, together=False), Layout(1, 2, 2), Layout(2, 1, 1), Layout(1, 2, 8))


def main() -> None:
    """Runs the script."""
    arguments = tyro.cli(Arguments, prog="python -m experiments.benchmarks.scaling")
    rows: list[dict] = []
    for layout in LAYOUTS:
        if layout.processes * layout.cores > os.cpu_count():
            print(f"left out, as there are {os.cpu_count()} cores: {layout}")
            continue
        found = dataclasses.asdict(layout) | {"examples_per_second": rate(arguments, layout)}
        cores = layout.processes * layout.cores
        found["efficiency"] = found["examples_per_second"] / (cores * (rows or [found])[0]["examples_per_second"])
        rows.append(found)
        print(f"{layout}: {found['examples_per_second']:.0f} examples/s, efficiency {found['efficiency']:.2f}", flush=True)
        result = {
            "experiment": arguments.experiment,
            "examples_per_device_and_step": _PER_DEVICE,
            "machine": run.machine(),
            "rows": rows,
        }
        arguments.output.write_text(json.dumps(result, indent=1) + "\n")


def rate(arguments: Arguments, layout: Layout) -> float:
    """Returns the median of examples a second over calls of ten steps."""
    with tempfile.TemporaryDirectory() as folder:
        workdirs = [pathlib.Path(folder) / ("run" if layout.together else f"run_{i}") for i in range(layout.processes)]
        port = _free_port()
        processes = [_start(arguments, layout, workdir, index, port) for index, workdir in enumerate(workdirs)]
        try:
            while len(seconds := _seconds(workdirs[-1])) <= arguments.num_rows:
                if any(process.poll() is not None for process in processes):
                    raise RuntimeError(
                        f"Expected {arguments.num_rows + 1} rows of metrics, got {len(seconds)} and the end of a process."
                    )
                time.sleep(0.5)
        finally:
            for process in processes:
                process.kill()
                process.wait()
    return _PER_DEVICE * layout.devices * layout.processes * _STEPS_PER_ROW / statistics.median(seconds[1:])


def _start(arguments: Arguments, layout: Layout, workdir: pathlib.Path, index: int, port: int) -> subprocess.Popen:
    steps = {
        "num-steps": 3 * _STEPS_PER_ROW * arguments.num_rows,
        "steps-per-call": _STEPS_PER_ROW,
        "calls-per-validation": 1_000,
    }
    command = [sys.executable, "-m", "jnf_jax_experiments", "train", arguments.experiment, "--workdir", str(workdir)]
    command += [
        "--batch-per-device",
        str(_PER_DEVICE),
        *(text for k, v in steps.items() for text in (f"--training.joint.{k}", str(v))),
    ]
    if layout.processes > 1 and layout.together:
        command += ["--coordinator", f"localhost:{port}", "--num-processes", str(layout.processes), "--process-id", str(index)]
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={layout.devices}"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    ours = os.sched_getaffinity(0)
    first, last = (0, layout.processes) if layout.together else (index, index + 1)
    os.sched_setaffinity(0, range(first * layout.cores, last * layout.cores))  # a child inherits it
    try:
        return subprocess.Popen(command, cwd=_ROOT, env={**os.environ, "XLA_FLAGS": flags}, **quiet)
    finally:
        os.sched_setaffinity(0, ours)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]


def _seconds(workdir: pathlib.Path) -> list[float]:
    path = workdir / "metrics.jsonl"
    return (
        [json.loads(line)["seconds"] for line in path.read_text().splitlines() if line.endswith("}")] if path.exists() else []
    )


if __name__ == "__main__":
    main()
