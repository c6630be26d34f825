"""The folder that a run leaves.

config.json      every setting        environment.json   versions, devices, command line
metrics.jsonl    training metrics     checkpoints/ params/   states and finished stages
evaluation.json  what was measured    samples/ figures/      what to look at
inference_gap.json  the same          taken.json  start/     stages of another run, weights that training starts from
"""

import contextlib
import fcntl
import hashlib
import json
import pathlib
import platform
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from importlib import metadata
from typing import Any

import jax

import jnf_jax
from experiments import experiment
from jnf_jax import configs
from jnf_jax.models import base
from jnf_jax.training import files, writers

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "distrax", "tfp-nightly", "blackjax", "orbax-checkpoint", "numpy")
# settings that say where data are, of any reader
_PLACE = re.compile(r"data(\.data)*(\.readers\.[^.]+)?\.(path|paths\..+|resident)")
_TRAINED = ("checkpoints", "params")
_MARKS = ("config.json", "environment.json")  # every run has them
_MEASURED = ("evaluation", "evaluation_validation", "inference_gap")
_CONTENT = (
    *("checkpoints", "params", "failed", "start", "metrics.jsonl", "taken.json", "product_gap", "samples", "figures"),
    *(f"{name}.{kind}{end}" for name in _MEASURED for kind in ("json", "parts.json") for end in ("", ".tmp", ".damaged")),
    *("loggers.json", "tensorboard", "wandb", "mlflow.db", "mlflow"),
    *("environment.json", "config.json"),  # its config marks the folder to the last
)


def check_free(workdir: pathlib.Path, config: experiment.Config) -> None:
    """Checks that a run's folder is new, or holds this very experiment.

    A damaged config.json is no trouble where environment.json tells that the run had this config.

    Raises:
      ValueError: if the folder holds a run of another config, or nobody knows which.
    """
    if not _present(workdir / "config.json"):
        if found := [name for name in _TRAINED if (workdir / name).is_dir() and any((workdir / name).iterdir())]:
            again = "start again with --overwrite" if _present(workdir / "environment.json") else "choose another --workdir"
            raise ValueError(f"Expected a config.json beside {workdir / found[0]}, got none: put it back, or {again}.")
        return
    try:
        known = load(workdir)
    except ValueError as error:
        if _recorded_sum(workdir) == _sum(configs.to_json(config)):
            return
        raise ValueError(f"{error} Start again with --overwrite, or put the file back.") from error
    differing = configs.differences(configs.to_json(known), configs.to_json(config)) | _order(known, config)
    if differing := {name: values for name, values in differing.items() if not _is_a_place(name)}:
        raise ValueError(
            f"Expected the config of the run in {workdir}, got other values (the run's -> these): {configs.told(differing)}. "
            "Continue it with the arguments that began it, choose another --workdir, or start again with --overwrite."
        )


def remove(workdir: pathlib.Path) -> None:
    """Removes what a run left in its folder; other files stay.

    Raises:
      ValueError: if the folder holds files of such names, but neither of those that every run has.
    """
    found = [workdir / name for name in _CONTENT if _present(workdir / name)]
    if found and not any(_present(workdir / name) for name in _MARKS):
        raise ValueError(f"Expected a run to remove, with {' or '.join(_MARKS)}, got {found[0]} without: remove it yourself.")
    for path in found:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def create(workdir: pathlib.Path, config: experiment.Config) -> None:
    """Makes the run's folder.

    Raises:
      ValueError: if its config could not be read back, for a component of it lies outside `configs.trusted()`, for instance.
    """
    configs.from_json(configs.to_json(config))
    workdir.mkdir(parents=True, exist_ok=True)
    files.write_json(workdir / "config.json", configs.to_json(config))
    files.write_json(workdir / "environment.json", _environment() | {"config_sha256": _sum(configs.to_json(config))})


def stage_differences(first: experiment.Config, other: experiment.Config, stage: str) -> list[str]:
    """Returns the settings, by their names, that make a stage of two experiments differ; empty where one may take the other's."""

    def settings(config: experiment.Config) -> dict:
        return {
            "data": configs.to_json(config.data),
            "model": base.settings_of(config.model, stage),
            "training": {stage: configs.to_json(config.training.get(stage))},
        }

    differing = configs.differences(settings(first), settings(other))
    return [*(name for name in differing if not _is_a_place(name)), *_order(first, other)]


def _is_a_place(name: str) -> bool:
    """Returns whether a setting of data says where they are, and not what: a summary of them is compared too, by `stages.train`."""
    return _PLACE.fullmatch(name) is not None


def label(workdir: pathlib.Path) -> str:
    """Returns what a run is called beside others: its folder's name, with its parent's where folders are named by their seed."""
    folder = workdir.resolve()
    return f"{folder.parent.name}/{folder.name}" if folder.name.startswith("seed_") else folder.name


def labels(workdirs: Sequence[pathlib.Path]) -> list[str]:
    """Returns what runs are called beside each other: `label`, or as much of their paths as tells them apart.

    Raises:
      ValueError: if a folder is there twice.
    """
    found = [label(workdir) for workdir in workdirs]
    parts = [workdir.resolve().parts for workdir in workdirs]
    for length in range(2, max(map(len, parts)) + 1):
        if len(set(found)) == len(found):
            return found
        found = ["/".join(part[-length:]) for part in parts]
    if len(set(found)) < len(found):
        raise ValueError(f"Expected different runs beside each other, got {', '.join(map(str, workdirs))}.")
    return found


def load(workdir: pathlib.Path) -> experiment.Config:
    """Returns the config of a run.

    Raises:
      ValueError: if there is no run in the folder, its config.json is damaged, or names a component that is not trusted or not there.
    """
    path = workdir / "config.json"
    if not _present(path):
        raise ValueError(f"Expected a run's folder with a config.json, got {workdir}.")
    try:
        value = files.read_json(path)
        if not isinstance(config := configs.from_json(value), experiment.Config):
            raise ValueError(f"{path} holds no experiment")
    except configs.ForeignError as error:
        raise ValueError(
            f"Expected the config of a run in {path} that can be built here, got one that cannot: {error}"
        ) from error
    except (ValueError, TypeError, KeyError, AttributeError, ImportError, RecursionError) as error:
        raise ValueError(f"Expected the config of a run in {path}, got a damaged file: {error}.") from error
    if _recorded_sum(workdir) not in (None, _sum(value)):
        raise ValueError(
            f"Expected the config that the run in {workdir} was begun with, got another: {path} has changed since."
        )
    return config


def metrics(workdir: pathlib.Path) -> list[dict]:
    """Returns the rows of a run's metrics.jsonl; none where there is no such file, and no line that a killed run left unfinished."""
    return writers.read_metrics(workdir / "metrics.jsonl")


@contextlib.contextmanager
def lease(workdir: pathlib.Path) -> Iterator[None]:
    """Holds the folder for this process; the system lets go of it when the process ends, however it ends.

    A folder that was made for it and has nothing in it at the end is removed.

    Raises:
      ValueError: if another process holds it.
    """
    new = not workdir.exists()
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        file = (workdir / ".lock").open("a")
    except OSError as error:
        raise ValueError(f"Expected a work directory that can be written, got {workdir}: {error.strerror}.") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(f"Expected to be the only writer in {workdir}, got another process at work there.") from error
        try:
            yield
        finally:
            if new and [path.name for path in workdir.iterdir()] == [".lock"]:  # a run that was refused
                (workdir / ".lock").unlink()
                workdir.rmdir()


def _environment() -> dict:
    return {
        "jnf_jax": jnf_jax.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "devices": [str(d) for d in jax.devices()],
        "packages": {name: metadata.version(name) for name in _PACKAGES},
        "command": sys.argv,
    }


def _order(first: experiment.Config, other: experiment.Config) -> dict[str, tuple[list[str], list[str]]]:
    """Returns the modalities of both where they have another order, in which networks are trained."""
    specs = [list(getattr(config.data, "specs", None) or {}) for config in (first, other)]
    return {} if specs[0] == specs[1] else {"data.specs": tuple(specs)}


def _present(path: pathlib.Path) -> bool:
    return path.exists() or path.is_symlink()


def _sum(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def _recorded_sum(workdir: pathlib.Path) -> str | None:
    """Returns the sha256 of the config that a run was begun with, None where nothing tells it."""
    try:
        return files.read_json(workdir / "environment.json")["config_sha256"]
    except (files.DamagedError, KeyError, TypeError, IndexError):
        return None
