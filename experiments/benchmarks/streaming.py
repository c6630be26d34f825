"""Memory and throughput of training on pictures that stream from files, beside pictures on the device.

    python -m experiments.benchmarks.streaming FOLDER [--num-examples 500000] [--output streaming.json]

Writes pictures of 64 x 64 pixels in colour and a vector into FOLDER (6 GB by default), and trains stage 1 of JNF on them. Memory is the peak of a process of its own, beside
that of a process that streams a hundredth of the pictures. Throughput is measured in one process that takes turns: ten calls on streamed pictures, ten on pictures on the device;
the first three of a turn do not count, as batches were read ahead during the other's turn. Medians are reported.
"""

import argparse
import json
import pathlib
import resource
import statistics
import subprocess
import sys
import time

import jax
import numpy as np

from experiments import experiment
from jnf_jax import configs, specs
from jnf_jax.data import arrays
from jnf_jax.models import jnf
from jnf_jax.networks import mlp
from jnf_jax.training import feed, fit, sharding, step

SPECS = {
    "picture": specs.ModalitySpec(shape=(64, 64, 3), support=(0.0, 1.0), scale=0.4),
    "vector": specs.ModalitySpec(shape=(8,)),
}
CONFIG = fit.Config(num_steps=100_000, batch_size=128, steps_per_call=10)
_CHUNK = 5_000
_TURN, _SKIPPED = 10, 3


def main() -> int:
    """Runs the script; returns its exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--num-examples", type=int, default=500_000)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--output", type=pathlib.Path)
    parser.add_argument("--memory", action="store_true", help="train for some calls and print the peak of resident memory")
    arguments = parser.parse_args()
    if arguments.memory:
        print(json.dumps(memory(arguments.folder)))
        return 0
    few = arguments.folder / "few"
    for folder, num in ((arguments.folder, arguments.num_examples), (few, arguments.num_examples // 100)):
        write(folder, num)
    peaks = {folder: peak(folder) for folder in (few, arguments.folder)}
    result = {
        "gigabytes": sum((arguments.folder / f"{name}.npy").stat().st_size for name in SPECS) / 1e9,
        "resident_gigabytes_small": peaks[few] / 1e9,
        "resident_gigabytes": peaks[arguments.folder] / 1e9,
        **throughput(arguments.folder, few, turns=arguments.turns),
    }
    print(json.dumps(result, indent=1))
    if arguments.output is not None:
        arguments.output.write_text(json.dumps(result, indent=1))
    return 0


def write(folder: pathlib.Path, num: int) -> None:
    """Writes `num` pictures and vectors, unless they are there."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    make = {
        "picture": lambda n: rng.integers(0, 256, (n, *SPECS["picture"].shape), np.uint8),
        "vector": lambda n: rng.normal(size=(n, 8)).astype(np.float32),
    }
    for name, examples in make.items():
        path, first = folder / f"{name}.npy", examples(1)
        if path.exists() and np.lib.format.open_memmap(path, mode="r").shape[0] == num:
            continue
        with path.open("wb") as file:
            header = {
                "descr": np.lib.format.dtype_to_descr(first.dtype),
                "fortran_order": False,
                "shape": (num, *first.shape[1:]),
            }
            np.lib.format.write_array_header_1_0(file, header)
            chunk = examples(min(_CHUNK, num))  # again and again: what is in a picture costs nothing
            for start in range(0, num, _CHUNK):
                file.write(chunk[: num - start].data)


def source(folder: pathlib.Path, *, resident: float = 0.0):
    """Returns the training examples of a folder, streamed unless they are no larger than `resident` MiB."""
    config = arrays.Config(path=str(folder), specs=SPECS, resident=resident, validation_fraction=0.01, test_fraction=0.01)
    return configs.build(config, "train")


def training(data):
    """Returns a function that takes one call's steps, and waits for it."""
    model = jnf.build(jnf.Config(latent_dim=16, network=mlp.Config(hidden=(256,)), joint_hidden=(256,)), SPECS)
    stage, mesh, optimizer, key = model.stages[0], sharding.make_mesh(), fit.make_optimizer(CONFIG), jax.random.key(0)
    params = model.init(key)
    options = {"batch_size": CONFIG.batch_size, "num_steps": CONFIG.steps_per_call, "total_steps": CONFIG.num_steps}
    call = step.make_train_call(stage, optimizer, mesh, streamed=feed.is_streamed(data), **options)
    batches = feed.calls(data, key, mesh, first_step=0, **options)
    state = [fit.initial_train_state(stage, params, optimizer)]

    def train() -> None:
        state[0], steps = call(state[0], {}, key, next(batches))
        jax.block_until_ready(steps)

    return train


def memory(folder: pathlib.Path) -> int:
    """Returns the peak of resident memory, in bytes, of a training that streams."""
    train = training(source(folder).batch())
    for _ in range(_TURN):
        train()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def peak(folder: pathlib.Path) -> int:
    """Returns `memory` of a process of its own."""
    command = [sys.executable, "-m", "experiments.benchmarks.streaming", str(folder), "--memory"]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def throughput(folder: pathlib.Path, few: pathlib.Path, *, turns: int) -> dict[str, float]:
    """Returns the median examples per second of both trainings, and the ratio."""
    both = {"streamed": training(source(folder).batch()), "on_device": training(source(few, resident=1_000.0).batch())}
    seconds: dict[str, list[float]] = {name: [] for name in both}
    for _ in range(turns):
        for name, train in both.items():
            for number in range(_TURN):
                begun = time.perf_counter()
                train()
                if number >= _SKIPPED:
                    seconds[name].append(time.perf_counter() - begun)
    examples = CONFIG.batch_size * CONFIG.steps_per_call
    found = {name: examples / statistics.median(times) for name, times in seconds.items()}
    return {f"{name}_examples_per_second": value for name, value in found.items()} | {
        "share_of_on_device": found["streamed"] / found["on_device"]
    }


if __name__ == "__main__":
    experiment.main(main)
