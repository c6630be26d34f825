"""Writes generated values: what each example lacks from all that it has, or other modalities from those to observe.

    jnf-jax predict --workdir runs/mine --output predicted                    # what is missing, in every split
    jnf-jax predict --workdir runs/mine --output predicted --observe scan     # all else, of the examples that have a scan

Vectors, tables and categories go into `<split>/<modality>.csv`, a line for each draw: `row`, the example's name in the data files, or its number
where it has none; `draw`; one column for each entry, in the units of the file and with the categories' names; and `rhat` of the chains behind it.
Images and other arrays go into `<split>/<modality>.npz`, with `values` `[draws, examples, ..]`.
"""

import contextlib
import csv
import dataclasses
import functools
import pathlib
import tempfile
from collections.abc import Callable, Iterator
from typing import Literal

import jax
import numpy as np
import tyro

from experiments import experiment, run_folder
from jnf_jax import keys, predictions, specs, subsets, units
from jnf_jax.data import source
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
            with _on_disk(arguments.output) as allocate:
                found = predictions.predict(
                    model, params, keys.stream(jax.random.key(arguments.seed), split), data[split],
                    given=given, num_samples=arguments.num_samples, noise=not arguments.mean, allocate=allocate,
                )  # fmt: skip
                for name, predicted in found.items():
                    _write(arguments.output / split, name, data[split], predicted)
                    counts[name] = counts.get(name, 0) + len(predicted.examples)
        progress.update("predicting", len(arguments.splits), len(arguments.splits))
    if not counts:
        what = "an example that lacks a modality" if given is None else f"an example that has {', '.join(given)}"
        raise ValueError(f"Expected {what} in {', '.join(arguments.splits)}, got none.")
    for name, number in counts.items():
        print(f"{name}: {number} examples")
    print(f"written: {arguments.output}")
    return 0


@contextlib.contextmanager
def _on_disk(folder: pathlib.Path) -> Iterator[Callable[[str, tuple[int, ...], np.dtype], np.ndarray]]:
    """Yields what allocates arrays in files of a folder, made with the first of them; they are removed at the end."""
    with contextlib.ExitStack() as stack:

        @functools.cache
        def temporary() -> pathlib.Path:
            folder.mkdir(parents=True, exist_ok=True)
            return pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(dir=folder, prefix=".draws")))

        yield lambda name, shape, dtype: np.memmap(temporary() / name, dtype, "w+", shape=shape)


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
            np.savez(file, row=rows, values=units.original(spec, predicted.values), rhat=predicted.rhat)
    temporary.replace(path)


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
