"""One side of one row, in a process of its own: reads amounts of work, a line each, answers with the time each took.

python -m experiments.benchmarks.worker {ours,theirs} ROW THREADS
"""

import importlib
import json
import resource
import sys

from experiments.benchmarks import settings


def main() -> None:
    """Runs the worker until its input ends."""
    side_name, row_name, num_threads = sys.argv[1:]
    side = importlib.import_module(f"experiments.benchmarks.{side_name}")
    side.start(int(num_threads))
    row = next(row for row in settings.rows() if row.name == row_name)
    run = side.prepare(row)
    _answer({"ready": True, "versions": side.versions(), "flops": getattr(run, "flops", None)})
    for line in sys.stdin:
        seconds = run(int(line))
        _answer({"seconds": seconds, "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024})


def _answer(values: dict) -> None:
    print(json.dumps(values), flush=True)


if __name__ == "__main__":
    main()
