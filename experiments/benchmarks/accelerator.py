"""Measures what only an accelerator shows, in one go, and writes results as they come.

    python -m experiments.benchmarks.accelerator --minutes 9 --output accelerator.json [--peer PATH_TO_PYTHON] [--small]

Needs no network and no data. First it says what the device's rounding of matrix products does to densities, inverses and draws. Training rows take eight times the batch until that gains less than a tenth; chains run for 100 to 10,000 observations.
Where `peer` has torch and MultiVae, MultiVae is asked for the same, each row in a process of its own. The most telling rows come first, and
those that the minutes did not suffice for are listed in the results. README.md says what to bring to a machine without a network.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import statistics
import tempfile
import time
from collections.abc import Iterator
from concurrent import futures

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # the peer wants some of the memory too

import jax
import jax.numpy as jnp
import numpy as np
import tyro

import jnf_jax
from experiments.benchmarks import effective, ours, run, settings, targets
from jnf_jax import types
from jnf_jax.posteriors import flow as expert

_BATCHES = (128, 1_024, 8_192)
_LEAST_GAIN = 1.1  # in samples a second, for eight times the batch
_OBSERVATIONS = (100, 1_000, 10_000)
_PRODUCT_SIZE = 8_192
_POINTS = 4_096
_ABOUT = ("batch_size", "precision", "num_observations")
_RESERVE = 20.0  # seconds that no row is begun in


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Measures what only an accelerator shows.

    Attributes:
      minutes: no row is begun after them.
      output: where the results go, after each row.
      peer: Python of an environment with torch and experiments/benchmarks/requirements.txt; None: ours is measured alone.
      only: beginnings of the names of the rows to run, `rounding` among them; the others keep the results that the output holds.
      small: sizes that a CPU manages, to try the program.
    """

    minutes: float = 9.0
    output: pathlib.Path = pathlib.Path("accelerator.json")
    peer: pathlib.Path | None = None
    only: tuple[str, ...] = ("",)
    small: bool = False


def main() -> None:
    """Runs the script."""
    arguments = tyro.cli(Arguments, prog="python -m experiments.benchmarks.accelerator")
    if arguments.peer is not None and not arguments.peer.exists():
        raise ValueError(f"Expected the Python of an environment with torch, got no file at {arguments.peer}.")
    end = time.monotonic() + 60 * arguments.minutes
    jnf_jax.use_compilation_cache()
    result = {"rounding": [], "rows": []} | (json.loads(arguments.output.read_text()) if arguments.output.exists() else {})
    result |= {"machine": run.machine(), "versions": ours.versions(), "peaks": peaks(arguments.small), "left_out": []}
    result["rows"] = [row for row in result["rows"] if not row["name"].startswith(arguments.only)]
    if "rounding".startswith(arguments.only):
        result["rounding"] = []
        for found in roundings(arguments.small):
            result["rounding"].append(found)
            print(json.dumps(found), flush=True)
            _write(arguments.output, result)
    saturated: set[str] = set()  # training rows whose batch need not grow any more
    best: dict[str, float] = {}
    for row in rows(arguments.small):
        if not row.name.startswith(arguments.only) or _series(row) in saturated:
            continue
        if time.monotonic() > end - _RESERVE:
            result["left_out"].append(label(row))
            continue
        found = measure(row, arguments.peer, result["peaks"])
        result["rows"].append(found)
        print(_line(found), flush=True)
        if row.kind == "train":
            if found.get("ours", 0) < _LEAST_GAIN * best.get(_series(row), 0) or "ours" not in found:
                saturated.add(_series(row))
            best[_series(row)] = max(found.get("ours", 0), best.get(_series(row), 0))
        _write(arguments.output, result)
    _write(arguments.output, result)
    print(f"written: {arguments.output}; {len(result['left_out'])} rows left out for want of time")


def rows(small: bool) -> Iterator[settings.Row]:
    """Yields the rows, the most telling ones first."""
    batches, observations = ((32, 64), (5,)) if small else (_BATCHES, _OBSERVATIONS)
    names = ("mnist_svhn_mlp",) if small else tuple(settings.SETTINGS)
    calls, repeats = (1, 1) if small else (5, 3)

    def train(setting, stage, precision):
        for size in batches:
            amount = calls * settings.STEPS_PER_CALL * size
            yield settings.Row(
                f"train/{setting}/{stage}", "samples", amount, amount if precision == "float32" else 0,
                repeats=repeats, batch_size=size, precision=precision,
            )  # fmt: skip

    def subset(setting, what):
        for number in observations[:: 2 if what.endswith("reference") else 1]:
            peer = settings.ITERATIONS // 10 if number == observations[0] else 0
            yield settings.Row(f"subset/{setting}/{what}", "chains", 1, peer, repeats=repeats, num_observations=number)

    def draws(setting):
        for number in observations:
            yield settings.Row(f"draws/{setting}/1", "draws", number, number, repeats=repeats)

    if small:
        yield from train(names[0], "joint", "float32")
        yield from train(names[0], "joint", "bfloat16")
        yield from train(names[0], "experts", "float32")
        yield from subset(names[0], "2_default")
        return
    yield from train("polymnist_512", "joint", "float32")
    yield from subset("polymnist_32", "2_default")
    yield from subset("polymnist_32", "2_reference")
    yield from train("polymnist_512", "joint", "bfloat16")
    yield from draws("polymnist_32")
    yield from subset("polymnist_512", "2_default")
    yield from train("polymnist_512", "experts", "float32")
    yield from subset("polymnist_32", "4_default")
    yield from subset("mnist_svhn_mlp", "2_default")
    yield from draws("polymnist_512")
    for precision in ("float32", "bfloat16"):
        for setting in ("mnist_svhn_mlp", "mnist_svhn_conv", "polymnist_32"):
            for stage in ("joint", "experts"):
                yield from train(setting, stage, precision)


def measure(row: settings.Row, peer: pathlib.Path | None, peaks: dict[str, float]) -> dict:
    """Returns what a row takes on both sides; an error in place of numbers where a side could not do it."""
    found = {"name": row.name, "unit": row.unit, "amount": row.amount} | _about(row)
    with futures.ThreadPoolExecutor(1) as pool:  # the peer gets ready while we compile
        theirs = pool.submit(run.Side, peer, "theirs", row) if peer is not None and row.peer_amount else None
        begun = time.perf_counter()
        try:
            ask = ours.prepare(row)
            ask(row.amount)
            found["seconds_to_first_result"] = time.perf_counter() - begun
            futures.wait([theirs] if theirs else [])
            seconds = [ask(row.amount) for _ in range(row.repeats)]
            found["seconds"] = seconds
            found["ours"] = _value(row, row.amount, statistics.median(seconds))
            if hasattr(ask, "flops"):
                found["flops"] = ask.flops()  # last: whatever it raises, the rate stays
                found["share_of_the_peak"] = found["flops"] * found["ours"] / peaks[row.precision]
        except (
            RuntimeError
        ) as error:  # XLA's own, too little memory above all: what fits has been measured, and the rest goes on
            found["error"] = str(error).split("\n")[0][:200]
        if memory := jax.devices()[0].memory_stats():
            found["peak_bytes_so_far"] = memory["peak_bytes_in_use"]
        if theirs:
            found |= _measure_peer(row, theirs)
    if "theirs" in found and "ours" in found:
        found["ratio"] = found["theirs"] / found["ours"] if row.kind == "subset" else found["ours"] / found["theirs"]
    return found


def roundings(small: bool) -> Iterator[dict]:
    """Yields what each precision of float32 matrix products does to trained flows: `default`, the device's own, and `highest`.

    Errors are those beside the CPU's float64: of log densities in nats, of inverses in units of the base's scale. The draws of a
    product of two are held against long chains computed at the highest precision.
    """
    with tempfile.TemporaryDirectory() as files:
        os.environ["BENCHMARK_FILES"] = files
        ours.train_curved_flows(files, num_steps=20 if small else 500)
        target = "gaussian_20" if small else "curved_20"  # long chains on curved ones take a CPU minutes
        flow, params = ours.target_flow("curved_20")
        params, dim = jax.tree.map(lambda leaf: leaf[0], params), settings.TARGETS["curved_20"][0]
        u = targets.BASE_SCALE * np.random.default_rng(2).normal(size=(_POINTS, dim)).astype(np.float32)

        def compute(params, u):
            base = types.Gaussian(jnp.zeros(dim, u.dtype), jnp.full(dim, targets.BASE_SCALE, u.dtype))
            z = jax.vmap(lambda u: flow.inverse(params, u)[0])(u)
            return z, jax.vmap(lambda z: expert.log_density(flow, params, base, z))(u)

        with jax.enable_x64(True), jax.default_device(jax.devices("cpu")[0]):
            exact_inverse, exact_density = map(
                np.asarray, jax.jit(compute)(*jax.tree.map(lambda x: np.asarray(x, np.float64), (params, u)))
            )
        with jax.default_matmul_precision("highest"):
            moments = targets.exact_moments(target) if small else ours.long_moments(target)[:2]
        for precision in ("default", "highest"):
            with jax.default_matmul_precision(precision):
                inverse, density = map(np.asarray, jax.jit(compute)(params, u))
                ask = ours.ess(settings.Row(f"ess/{target}/default", "runs", 1, 0))
                seconds = statistics.median(ask(1) for _ in range(1 if small else 3))
            square, error = effective.mean_square(ask.trace(), *moments)
            yield {
                "precision": precision,
                "density_error_rms": float(np.sqrt(np.mean((density - exact_density) ** 2))),
                "density_error_largest": float(np.abs(density - exact_density).max()),
                "inverse_error_largest": float(np.abs(inverse - exact_inverse).max() / targets.BASE_SCALE),
                "target": target,
                "chains_seconds": seconds,
                "standardised_mean_square": square,
                "standard_error": error,
            } | ask.extra()


def _measure_peer(row: settings.Row, started: futures.Future) -> dict:
    try:
        with contextlib.closing(started.result()) as side:
            if row.kind != "subset":
                side.ask(str(row.peer_amount))
            seconds = statistics.median(side.ask(str(row.peer_amount))["seconds"] for _ in range(row.repeats))
    except (RuntimeError, BrokenPipeError) as error:
        return {"peer_error": next((line for line in reversed(str(error).split("\n")) if "Error" in line), str(error))[:300]}
    if row.kind == "subset":  # its cost is linear in its iterations
        seconds *= settings.ITERATIONS / row.peer_amount
    return {"theirs": _value(row, row.peer_amount, seconds), "peer_versions": side.versions}


def peaks(small: bool) -> dict[str, float]:
    """Returns the floating-point operations a second of a large matrix product, by what it computes in."""
    size = 256 if small else _PRODUCT_SIZE
    found = {}
    for precision in ("float32", "bfloat16"):
        matrix = jax.random.normal(jax.random.key(0), (size, size), precision)
        multiply = jax.jit(jnp.matmul)
        jax.block_until_ready(multiply(matrix, matrix))
        found[precision] = 2 * size**3 / statistics.median(ours.timed(lambda m=matrix: multiply(m, m)) for _ in range(9))
    return found


def _value(row: settings.Row, amount: int, seconds: float) -> float:
    """Returns a rate, of subset posteriors the seconds themselves."""
    return seconds if row.kind == "subset" else amount / seconds


def _series(row: settings.Row) -> str:
    """Returns what the rows of one series, which differ in their batch, have in common."""
    return f"{row.name} {row.precision}"


def label(row: settings.Row) -> str:
    """Returns a row's name and what it is measured at."""
    return label_of({"name": row.name} | _about(row))


def label_of(found: dict) -> str:
    """Returns the label of a row of the results."""
    return " ".join([found["name"], *(f"{name}={found[name]}" for name in _ABOUT if name in found)])


def _about(row: settings.Row) -> dict:
    if row.kind == "train":
        return {"batch_size": row.examples_per_step, "precision": row.precision}
    return {"num_observations": row.num_observations if row.kind == "subset" else row.amount}


def _line(found: dict) -> str:
    about = " ".join(str(found[name]) for name in _ABOUT if name in found)
    value = f"{found['ours']:.4g}" if "ours" in found else f"failed: {found.get('error')}"
    share = f", {found['share_of_the_peak']:.2f} of the peak" if "share_of_the_peak" in found else ""
    theirs = f", theirs {found['theirs']:.4g}, ratio {found['ratio']:.2f}" if "ratio" in found else ""
    return f"{found['name']} {about}: {value}{share}{theirs}"


def _write(path: pathlib.Path, result: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
