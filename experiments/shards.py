"""Codes drawn for every example of a split that has what is observed, as parquet files of some thousand examples each; `_manifest.json`
lists them.

A row is one draw: `example`, its number in the split; `row`, its name or number in the data files, where these were divided; `draw`; `z`, the
code; and `rhat` of the chains behind it. A shard is renamed into place when it is whole, and holds what it was asked for, so that a command that was stopped goes on with the shards that are missing. A shard has a key of its own: it is the same
whoever draws it.
"""

import dataclasses
import functools
import hashlib
import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments import experiment, run_folder
from jnf_jax import keys, subsets
from jnf_jax.data import source
from jnf_jax.metrics import codes
from jnf_jax.training import files, manifests, stages

_ASKED = b"asked"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """What is drawn.

    Attributes:
      workdir: folder of the run.
      output: folder of the shards.
      observe: the observed modalities, separated by commas.
      split: of the data.
      num_samples: draws of each example.
      per_shard: examples in a shard.
      seed: of the draws.
    """

    workdir: str
    output: str
    observe: str
    split: str
    num_samples: int
    per_shard: int
    seed: int


class Plan(NamedTuple):
    """What is to be done."""

    asked: dict[str, Any]  # what a shard holds, as JSON values; the trained weights' checksum included
    rows: np.ndarray  # numbers of the examples that have what is observed
    num_of_split: int
    missing: list[int]  # numbers of the shards that are not there yet


def plan(job: Job) -> Plan:
    """Returns what is still to be drawn.

    Raises:
      ValueError: if a number makes no sense, a modality is unknown, pyarrow is not installed, or the folder holds shards of something else.
    """
    parquet = _parquet()
    for name in ("num_samples", "per_shard"):
        if getattr(job, name) < 1:
            raise ValueError(f"Expected a {name} of at least 1, got {getattr(job, name)}.")
    model, data, params = _loaded(job.workdir)
    subset = subsets.parse(tuple(model.specs), job.observe)
    about = {name: value for name, value in dataclasses.asdict(job).items() if name not in ("workdir", "output", "observe")}
    asked = about | {
        "observe": list(subset),
        "config": hashlib.sha256((pathlib.Path(job.workdir) / "config.json").read_bytes()).hexdigest(),
        "weights": manifests.digest(params),
    }
    rows = _rows(data[job.split], subset)
    if not len(rows):
        raise ValueError(f"Expected an example of {job.split} that has {', '.join(subset)}, got none.")
    if len(rows) < len(data[job.split]):
        asked["examples"] = hashlib.sha256(rows.tobytes()).hexdigest()
    pathlib.Path(job.output).mkdir(parents=True, exist_ok=True)
    missing = []
    for number in range(-(-len(rows) // job.per_shard)):
        path = _path(job, number)
        if not path.exists():
            missing.append(number)
        elif _asked(parquet, path) != asked:
            raise ValueError(f"Expected shards of this very question in {job.output}, got another's: {path.name}.")
    return Plan(asked, rows, len(data[job.split]), missing)


def draw(job: Job, asked: dict[str, Any], number: int) -> None:
    """Draws and writes one shard."""
    import pyarrow

    parquet = _parquet()
    model, data, params = _loaded(job.workdir)
    examples = data[job.split]
    having = _rows(examples, asked["observe"])
    first = number * job.per_shard
    rows = having[first : first + job.per_shard]
    filled = np.resize(np.roll(having, -first), min(job.per_shard, len(having)))  # shards have one shape
    observed = {name: examples.arrays[name][filled] for name in asked["observe"]}
    key = keys.stream(keys.stream(jax.random.key(job.seed), "shard", number), ",".join(asked["observe"]))
    z, info = jax.device_get(model.sample_posterior(params, key, observed, num_samples=job.num_samples))
    z = codes.as_array(z)[:, : len(rows)].swapaxes(0, 1)  # [B, S, D]
    flat = pyarrow.array(np.ascontiguousarray(z, np.float32).reshape(-1))
    table = pyarrow.table(
        {
            "example": np.repeat(rows, job.num_samples),
            **({} if examples.rows is None else {"row": np.repeat(examples.rows[rows], job.num_samples)}),
            "draw": np.tile(np.arange(job.num_samples), len(rows)),
            "z": pyarrow.FixedSizeListArray.from_arrays(flat, z.shape[-1]),
            "rhat": np.repeat(np.asarray(info.rhat, np.float32)[: len(rows)], job.num_samples),
        }
    ).replace_schema_metadata({_ASKED: json.dumps(asked).encode()})
    path = _path(job, number)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    parquet.write_table(table, temporary)
    temporary.replace(path)


def finish(job: Job, found: Plan) -> pathlib.Path:
    """Writes the manifest, once every shard is there; returns its path."""
    listed = []
    for number, first in enumerate(range(0, len(found.rows), job.per_shard)):
        rows, path = found.rows[first : first + job.per_shard], _path(job, number)
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        listed.append({"file": path.name, "first": int(rows[0]), "num_examples": len(rows), "sha256": sha256})
    for left in pathlib.Path(job.output).glob(".*.tmp"):  # by workers that were lost
        left.unlink()
    path = pathlib.Path(job.output) / "_manifest.json"
    counts = {"num_examples": len(found.rows), "num_left_out": found.num_of_split - len(found.rows)}
    files.write_json(path, {"asked": found.asked, **counts, "shards": listed})
    return path


def _asked(parquet, path: pathlib.Path) -> Any:
    """Returns what a shard holds, None where that is not a shard."""
    try:
        return json.loads((parquet.read_schema(path).metadata or {}).get(_ASKED, b"null"))
    except ValueError:  # pyarrow's own among them
        return None


def _rows(examples: source.Source, observed: Sequence[str]) -> np.ndarray:
    """Returns the numbers of the examples that have all that is observed."""
    return np.flatnonzero(examples.having(observed))


def _path(job: Job, number: int) -> pathlib.Path:
    return pathlib.Path(job.output) / f"part-{number:05d}.parquet"


@functools.cache
def _loaded(workdir: str):
    folder = pathlib.Path(workdir)
    model, data = experiment.build(run_folder.load(folder))
    return model, data, stages.load(model, folder, data={"test": data["test"]})


def _parquet():
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise ValueError('Expected pyarrow for `--all`, got none: pip install "jnf_jax[ray]".') from error
    return parquet
