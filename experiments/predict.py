"""Writes generated values: what each example lacks from all that it has, or other modalities from those to observe.

    jnf-jax predict --workdir runs/mine --output predicted                    # what is missing, in every split
    jnf-jax predict --workdir runs/mine --output predicted --observe scan     # all else, of the examples that have a scan

Vectors, tables and categories go into `<split>/<modality>.csv`, a line for each draw: `row`, the example's name in the data files, or its number
where it has none; `draw`; one column for each entry, in the units of the file and with the categories' names; and `rhat` of the chains behind it.
Images and other arrays go into `<split>/<modality>.npz`, with `values` `[draws, examples, ..]`.
"""

import csv
import dataclasses
import math
import os
import pathlib
import tempfile
from typing import Literal

import jax
import numpy as np
import tyro

from experiments import experiment, run_folder
from jnf_jax import keys, predictions, specs, subsets, types, units
from jnf_jax.data import source
from jnf_jax.models import base
from jnf_jax.training import stages, writers


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Writes generated values.

    Attributes:
      workdir: folder of the run.
      output: folder of the values, a new or an empty one.
      observe: modalities to observe, separated by commas; None: whatever an example has, and what it lacks is generated.
      splits: of the data.
      num_samples: draws of each example.
      mean: whether a draw is the likelihood's mean, without its noise.
      seed: of the draws.
    """

    workdir: pathlib.Path
    output: pathlib.Path
    observe: str | None = None
    splits: tuple[Literal["train", "validation", "test"], ...] = source.SPLITS
    num_samples: int = 20
    mean: bool = False
    seed: int = 0


def main() -> int:
    """Runs the script; returns its exit code."""
    arguments = tyro.cli(Arguments, prog="jnf-jax predict")
    experiment.check_counts(arguments, "num_samples")
    if arguments.output.exists() and (not arguments.output.is_dir() or any(arguments.output.iterdir())):
        raise ValueError(f"Expected a new or an empty folder as --output, got {arguments.output}.")
    model, data = experiment.build(run_folder.load(arguments.workdir))
    given = None if arguments.observe is None else subsets.parse(tuple(model.specs), arguments.observe)
    params = stages.load(model, arguments.workdir, data={"test": data["test"]})
    counts: dict[str, int] = {}
    with writers.Progress() as progress:
        for done, split in enumerate(arguments.splits):
            progress.update("predicting", done, len(arguments.splits), split)
            key = keys.stream(jax.random.key(arguments.seed), split)
            for name, number in _predict(arguments, model, params, key, data[split], given, arguments.output / split).items():
                counts[name] = counts.get(name, 0) + number
        progress.update("predicting", len(arguments.splits), len(arguments.splits))
    if not counts:
        what = "an example that lacks a modality" if given is None else f"an example that has {', '.join(given)}"
        raise ValueError(f"Expected {what} in {', '.join(arguments.splits)}, got none.")
    for name, number in counts.items():
        print(f"{name}: {number} examples")
    print(f"written: {arguments.output}")
    return 0


def _predict(
    arguments: Arguments,
    model: base.Model,
    params: types.Params,
    key: types.Array,
    data: source.Source,
    given: subsets.Subset | None,
    folder: pathlib.Path,
) -> dict[str, int]:
    """Writes the values of one split into its folder; returns modality -> the number of its examples."""
    found = predictions.predict(
        model, params, key, data, given=given, num_samples=arguments.num_samples, noise=not arguments.mean,
        allocate=lambda name, shape, dtype: _on_disk(folder, shape, dtype),
    )  # fmt: skip
    for name, predicted in found.items():
        _write(folder, name, data, predicted)
    return {name: len(predicted.examples) for name, predicted in found.items()}


def _on_disk(folder: pathlib.Path, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Returns an array that lies in a file without a name, on the disk of a folder; it is gone when nobody holds it."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as file:
        if hasattr(os, "posix_fallocate"):  # a full disk is an error here, and would be a crash when values are written
            os.posix_fallocate(file.fileno(), 0, math.prod(shape) * np.dtype(dtype).itemsize)
        return np.memmap(file, dtype, "w+", shape=shape)


def _write(folder: pathlib.Path, name: str, data: source.Source, predicted: predictions.Predicted) -> None:
    """Writes a modality's values; the file is renamed into place when it is whole."""
    spec = data.specs[name]
    folder.mkdir(parents=True, exist_ok=True)
    rows = predicted.examples if data.rows is None else data.rows[predicted.examples]
    path = folder / f"{name}.{'csv' if len(spec.shape) == 1 else 'npz'}"
    temporary = path.with_name(f".{path.name}.tmp")
    if path.suffix == ".csv":
        with temporary.open("w", newline="") as file:
            table = csv.writer(file)
            table.writerow(["row", "draw", *_entries(name, spec), "rhat"])
            for i, row in enumerate(rows.tolist()):
                for draw, x in enumerate(units.original(spec, predicted.values[:, i])):
                    table.writerow([row, draw, *_words(spec, x), f"{predicted.rhat[i]:.4g}"])
    else:
        with temporary.open("wb") as file:
            np.savez(file, row=rows, values=_in_units(spec, predicted.values, folder), rhat=predicted.rhat)
    temporary.replace(path)


def _in_units(spec: specs.ModalitySpec, values: np.ndarray, folder: pathlib.Path) -> np.ndarray:
    """Returns values `[S, M, *shape]` in the units of the file, converted an example at a time."""
    if spec.mean is None:
        return values
    found = _on_disk(folder, values.shape, np.dtype(float))
    for i in range(values.shape[1]):
        found[:, i] = units.original(spec, values[:, i])
    return found


def _entries(name: str, spec: specs.ModalitySpec) -> list[str]:
    """Returns the names of a vector's columns."""
    if spec.labels is not None and spec.num_categories is None:
        return list(spec.labels)
    return [name] if spec.size == 1 else [f"{name}_{i}" for i in range(spec.size)]


def _words(spec: specs.ModalitySpec, x: np.ndarray) -> list:
    if spec.num_categories is None:
        digits = 7 if spec.mean is None else 12  # of a large mean many count
        return [f"{value:.{digits}g}" for value in x.tolist()]
    return [int(value) if spec.labels is None else spec.labels[int(value)] for value in x]


if __name__ == "__main__":
    experiment.main(main)
