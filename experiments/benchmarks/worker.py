"""One side of one row, in a process of its own.

    python -m experiments.benchmarks.worker {ours,theirs} ROW THREADS     (ROW: its name, or its fields as JSON)

Reads a line, answers with a line of JSON: an amount of work -> the seconds it took; `flops` -> those of a unit of work; `trace PATH` -> the
states of the last run's chains, written to PATH.
"""

import importlib
import json
import resource
import sys

import numpy as np

from experiments.benchmarks import settings


def main() -> None:
    """Runs the worker until its input ends."""
    side_name, row_name, num_threads = sys.argv[1:]
    side = importlib.import_module(f"experiments.benchmarks.{side_name}")
    side.start(int(num_threads))
    row = settings.find(row_name)
    run = side.prepare(row)
    _answer({"ready": True, "versions": side.versions()})
    for line in sys.stdin:
        command, *rest = line.split()
        if command == "flops":
            _answer({"flops": run.flops() if hasattr(run, "flops") else None})
        elif command == "trace":
            np.save(rest[0], run.trace())
            _answer(run.extra() if hasattr(run, "extra") else {})
        else:
            seconds = run(int(command))
            _answer({"seconds": seconds, "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024})


def _answer(values: dict) -> None:
    print(json.dumps(values), flush=True)


if __name__ == "__main__":
    main()
