"""Runs the benchmarks, both sides in turns on an otherwise idle machine, and writes results.json and a table.

    python -m experiments.benchmarks.run [--peer PATH_TO_PYTHON] [--only train/ subset/] [--output results.json]

Every side of every row is a process of its own; while one works, the other waits for its input. Without the peer ours is measured alone.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import tempfile
import time

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from experiments.benchmarks import effective, ours, settings

_ROOT = pathlib.Path(__file__).parents[2]
_MEMORY = (
    "train/polymnist_512/joint",
    "subset/polymnist_512/2_reference",
    *(f"subset/polymnist_32/2_default_{num}" for num in settings.MANY),
)
_ORDER = ("train", "draws", "subset", "ess", "start", "memory")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Runs the benchmarks.

    Attributes:
      peer: Python of an environment with experiments/benchmarks/requirements.txt; where there is none, ours is measured alone.
      only: beginnings of the names of the rows to run; the others keep the results that the output holds.
      output: where the results go.
    """

    peer: pathlib.Path = pathlib.Path(".venv-multivae/bin/python")
    only: tuple[str, ...] = ("",)
    output: pathlib.Path = pathlib.Path(__file__).parent / "results.json"


class Side:
    """A worker: `ask` sends a line and returns the answer."""

    def __init__(self, python: pathlib.Path | str, side: str, row: settings.Row, **environment: str):
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115, lives as long as the worker
        self._process = subprocess.Popen(
            [
                str(python),
                "-W",
                "ignore",
                "-m",
                "experiments.benchmarks.worker",
                side,
                json.dumps(dataclasses.asdict(row)),
                str(os.cpu_count()),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            cwd=_ROOT,
            env={**os.environ, **environment},
        )
        self.versions = self._read()["versions"]

    def ask(self, line: str) -> dict:
        """Returns the answer to a line."""
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()
        return self._read()

    def close(self) -> None:
        """Ends the worker."""
        self._process.kill()
        self._process.wait()

    def _read(self) -> dict:
        for line in self._process.stdout:
            if line.startswith("{"):
                return json.loads(line)
        self._log.seek(0)
        raise RuntimeError(f"Expected an answer of the worker, got its end:\n{self._log.read()[-2_000:]}")


def main() -> None:
    """Runs the script."""
    arguments = tyro.cli(Arguments, prog="python -m experiments.benchmarks.run")
    peer = (
        arguments.peer.absolute() if arguments.peer.exists() else None
    )  # not resolved: a link in an environment is its Python
    if peer is None:
        print(f"There is no {arguments.peer}: ours is measured alone.", flush=True)
    result = json.loads(arguments.output.read_text()) if arguments.output.exists() else {"rows": []}
    result["machine"] = machine()
    with tempfile.TemporaryDirectory() as files:
        os.environ["BENCHMARK_FILES"] = files
        jobs = [(name, measure) for name, measure in _jobs(peer) if name.startswith(arguments.only)]
        if any(name.startswith("ess/curved") for name, _ in jobs):
            ours.train_curved_flows(files)
        for _, measure in jobs:
            begun = time.monotonic()
            for row in measure():
                row["measured"] = time.strftime("%Y-%m-%d")
                result["rows"] = [r for r in result["rows"] if r["name"] != row["name"]] + [row]
                print(f"{_line(row)}   [{time.monotonic() - begun:.0f} s]", flush=True)
            arguments.output.write_text(json.dumps(result, indent=1) + "\n")
    print(f"\n{table(result['rows'])}")


def table(rows: list[dict]) -> str:
    """Returns the results as a table in Markdown."""
    number = lambda value: "" if value is None else f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
    lines = ["| | ours | MultiVae | ratio | of a matrix product |", "|---|---|---|---|---|"]
    for row in sorted(rows, key=lambda row: _ORDER.index(row["name"].split("/")[0])):
        fraction = f"{row['roofline_fraction']:.2f}" if row.get("roofline_fraction") else ""
        ratio = "" if row["ratio"] is None else f"{row['ratio']:.2f}" if row["ratio"] < 10 else f"{row['ratio']:.0f}"
        unit = row["unit"].replace("effective ", "")
        lines.append(f"| {row['name']} | {number(row['ours'])} {unit} | {number(row['theirs'])} | {ratio} | {fraction} |")
    return "\n".join(lines)


def _jobs(peer):
    """Yields (name, function that returns the rows measured)."""
    product = _matrix_product_rate()
    for row in settings.rows():
        yield row.name, lambda row=row: _compare(row, peer, product)
    rows = {row.name: row for row in settings.rows()}
    for what, name in [
        ("train", "train/polymnist_32/joint"),
        ("draws", "draws/polymnist_32/1"),
        ("subset", "subset/polymnist_32/2_default"),
    ]:
        yield f"start/polymnist_32/{what}", lambda what=what, name=name: _start(f"start/polymnist_32/{what}", rows[name], peer)


def _compare(row: settings.Row, peer, product: float) -> list[dict]:
    """Times both sides in turns."""
    with contextlib.ExitStack() as stack:
        sides = {"ours": Side(sys.executable, "ours", row)}
        if peer is not None and row.peer_amount:
            sides["theirs"] = Side(peer, "theirs", row)
        for side in sides.values():
            stack.callback(side.close)
        amounts = {"ours": row.amount, "theirs": row.peer_amount}
        if row.repeats > 1:
            sides["ours"].ask(str(row.amount))
        if row.kind not in ("subset", "ess") and "theirs" in sides:  # those are too long for a first run to matter
            sides["theirs"].ask(str(row.peer_amount))
        seconds: dict[str, list[float]] = {side: [] for side in sides}
        memory: dict[str, float] = {}
        for _ in range(row.repeats):
            for name, side in sides.items():
                answer = side.ask(str(amounts[name]))
                seconds[name].append(answer["seconds"])
                memory[name] = answer["peak_mib"]
        medians = {name: statistics.median(values) for name, values in seconds.items()}
        common = {"repeats": row.repeats, "versions": {k: v for side in sides.values() for k, v in side.versions.items()}}
        if row.kind == "subset":  # the peer's cost is linear in its iterations
            if "theirs" in medians:
                medians["theirs"] *= settings.ITERATIONS / row.peer_amount
            result = _row(row.name, "s", medians, lower_is_better=True) | common
            if "theirs" in sides and row.name == "subset/polymnist_32/2_reference":
                result["theirs_full_pass"] = sides["theirs"].ask(str(settings.ITERATIONS))["seconds"]
        elif row.kind == "ess":
            result = effective.row(row, sides, medians) | common
        else:
            rates = {name: amounts[name] / value for name, value in medians.items()}
            result = _row(row.name, f"{row.unit}/s", rates, lower_is_better=False) | common
            flops = sides["ours"].ask("flops")["flops"]
            if flops is not None:
                result |= {
                    "roofline_fraction": flops * rates["ours"] / product,
                    "matrix_product_flops": product,
                    "flops": flops,
                }
        result["spread"] = {name: [min(v) / statistics.median(v), max(v) / statistics.median(v)] for name, v in seconds.items()}
        rows = [result]
        if row.name in _MEMORY:
            rows.append(_row(f"memory/{row.name.replace('/', '_')}", "MiB", memory, lower_is_better=True))
        return rows


def _start(name: str, row: settings.Row, peer) -> list[dict]:
    """Times what passes between a process's start and its first result."""

    def first(python, side, amount, **environment):
        begun = time.perf_counter()
        worker = Side(python, side, row, **environment)
        worker.ask(str(amount))
        worker.close()
        return time.perf_counter() - begun

    peer_amount = settings.ITERATIONS if row.kind == "subset" else row.peer_amount
    amount = row.peer_amount if row.kind == "train" else row.amount  # as many steps on both sides
    repeats = 1 if row.kind == "subset" else 3  # their chain takes a minute
    seconds: dict[str, list[float]] = {"cold": [], "cached": [], "theirs": []}
    with tempfile.TemporaryDirectory() as cache:
        cached = {"JAX_COMPILATION_CACHE_DIR": cache, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
        first(sys.executable, "ours", amount, **cached)
        for _ in range(repeats):  # in turns
            if peer is not None:
                seconds["theirs"].append(first(peer, "theirs", peer_amount))
            seconds["cold"].append(first(sys.executable, "ours", amount, JAX_ENABLE_COMPILATION_CACHE="false"))
            seconds["cached"].append(first(sys.executable, "ours", amount, **cached))
    medians = {side: statistics.median(values) for side, values in seconds.items() if values}
    theirs = {side: value for side, value in medians.items() if side == "theirs"}
    return [
        _row(f"{name}_{state}", "s", {"ours": medians[state]} | theirs, lower_is_better=True) | {"repeats": repeats}
        for state in ("cold", "cached")
    ]


def _row(name: str, unit: str, values: dict[str, float], *, lower_is_better: bool) -> dict:
    """Returns a row; a ratio above 1 says that ours is ahead."""
    row = {"name": name, "unit": unit, "ours": values["ours"], "theirs": values.get("theirs"), "ratio": None}
    if "theirs" in values:
        row["ratio"] = values["theirs"] / values["ours"] if lower_is_better else values["ours"] / values["theirs"]
    return row


def _matrix_product_rate(size: int = 2_048, repeats: int = 9) -> float:
    """Returns the floating-point operations a second of a large matrix product, the machine's own limit."""
    matrix = jnp.ones((size, size))
    multiply = jax.jit(lambda m: m @ m)
    multiply(matrix).block_until_ready()
    return 2 * size**3 / statistics.median(ours.timed(lambda: multiply(matrix)) for _ in range(repeats))


def machine() -> dict:
    """Returns what is measured on."""
    model = ""
    with contextlib.suppress(OSError):
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "")
    return {
        "processor": model or platform.processor(),
        "cores": os.cpu_count(),
        "devices": [str(d.device_kind) for d in jax.devices()],
        "python": platform.python_version(),
        "numpy": np.__version__,
    }


def _line(row: dict) -> str:
    theirs = "-" if row["theirs"] is None else f"{row['theirs']:.4g}"
    ratio = "-" if row["ratio"] is None else f"{row['ratio']:.2f}"
    roofline = f"{row['roofline_fraction']:.2f} of a matrix product" if row.get("roofline_fraction") else ""
    return f"{row['name']:36s} ours {row['ours']:.4g} {row['unit']}, theirs {theirs}, ratio {ratio} {roofline}".rstrip()


if __name__ == "__main__":
    main()
