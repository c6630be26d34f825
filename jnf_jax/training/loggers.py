"""Curves and pictures in TensorBoard, Weights & Biases and MLflow, beside `metrics.jsonl`; each is an optional extra.

A curve is called `stage/metric` and goes over the steps of its stage. A resumed run repeats, bit for bit, the steps since its last
checkpoint, and each logger says what becomes of the points that a killed run left there.
"""

import importlib
import os
import pathlib
import re
import types
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from jnf_jax.training import files, fit, writers

_PROJECT = "jnf_jax"
_RUNS = "loggers.json"  # in a run's folder: logger -> its own name of the run


class Logger(Protocol):
    """Where the curves of a run go."""

    def begin(self, stage: str, step: int) -> None:
        """Is called before a stage's first call, with the step that it continues at, 0 at its start."""

    def write(self, report: fit.Report) -> None:
        """Adds the points of one call."""

    def picture(self, stage: str, step: int, image: np.ndarray) -> None:
        """Adds a picture `[H, W, 3]` in [0, 1]."""

    def close(self) -> None:
        """Writes what is still to be written."""


def check(names: Sequence[str]) -> None:
    """Checks that the packages of these loggers are installed.

    Raises:
      ValueError: if one is unknown or its package is missing.
    """
    for name in names:
        if name not in LOGGERS:
            raise ValueError(f"Expected loggers of {list(LOGGERS)}, got {name!r}.")
        _library(name)


def start(
    names: Sequence[str],
    folder: pathlib.Path,
    settings: Mapping[str, Any],
    *,
    on_failure: Callable[[str, Exception], None] | None = None,
) -> list[Logger]:
    """Returns the loggers of a run; those that the run had before go on with the same curves.

    Args:
      names: of `LOGGERS`.
      folder: of the run.
      settings: the run's config as JSON values.
      on_failure: called with a logger's name and its error if the logger does not start; without it, that is an error.

    Raises:
      ValueError: as `check`, or if a logger does not start and there is no `on_failure`.
    """
    check(names)
    found = []
    for name in dict.fromkeys(names):
        try:
            found.append(LOGGERS[name](folder, settings))
        except Exception as error:  # each library has kinds of its own
            if on_failure is None and str(error).startswith("Expected"):
                raise
            if on_failure is None:
                raise ValueError(f"Expected a logger {name!r} that starts, got {type(error).__name__}: {error}") from error
            on_failure(name, error)
    return found


class TensorBoard:
    """Event files in `tensorboard/<stage>` of the run's folder, without TensorFlow; points of a killed run are purged."""

    def __init__(self, folder: pathlib.Path, settings: Mapping[str, Any]):
        del settings
        self._folder = folder / "tensorboard"
        self._writers: dict[str, Any] = {}

    def begin(self, stage: str, step: int) -> None:
        """Opens a file whose first event hides the older files' points beyond `step`."""
        make = _library("tensorboard").SummaryWriter
        self._writers[stage] = make(str(self._folder / stage), purge_step=step + 1)

    def write(self, report: fit.Report) -> None:
        """Adds the points of one call."""
        writer = self._writers[report.stage]
        for name, value in _points(report).items():
            writer.add_scalar(name, value, report.step)
        writer.flush()

    def picture(self, stage: str, step: int, image: np.ndarray) -> None:
        """Adds a picture."""
        self._writers[stage].add_image(f"{stage}/pictures", _as_bytes(image), step, dataformats="HWC")

    def close(self) -> None:
        """Closes the files."""
        for writer in self._writers.values():
            writer.close()


class WandB:
    """A run of Weights & Biases, in `wandb/` of the run's folder; `WANDB_MODE=offline` needs no account.

    Points of a killed run stay, and the resumed run adds equal ones on top of them. W&B's own step counts calls: curves are drawn over `stage/step`.
    """

    def __init__(self, folder: pathlib.Path, settings: Mapping[str, Any]):
        wandb = _library("wandb")
        try:
            self._run = wandb.init(
                project=os.environ.get("WANDB_PROJECT", _PROJECT),
                name=folder.name,
                id=_known(folder, "wandb", lambda: uuid.uuid4().hex[:8]),
                resume="allow",
                dir=str(folder),
                config=dict(settings),
            )
        except wandb.errors.UsageError as error:
            raise ValueError(f"Expected an account of Weights & Biases, or WANDB_MODE=offline, got none: {error}") from error

    def begin(self, stage: str, step: int) -> None:
        """Says over which axis the stage's curves go."""
        del step
        self._run.define_metric(f"{stage}/*", step_metric=f"{stage}/step")

    def write(self, report: fit.Report) -> None:
        """Adds the points of one call."""
        self._run.log({f"{report.stage}/step": report.step, **_points(report)})

    def picture(self, stage: str, step: int, image: np.ndarray) -> None:
        """Adds a picture."""
        self._run.log({f"{stage}/step": step, f"{stage}/pictures": _library("wandb").Image(_as_bytes(image))})

    def close(self) -> None:
        """Ends the run; a process of W&B's own writes the rest of it."""
        self._run.finish()


class MLflow:
    """A run of MLflow, in `mlflow.db` and `mlflow/` of the run's folder unless `MLFLOW_TRACKING_URI` names a server.

    Points that it has are not added again.
    """

    def __init__(self, folder: pathlib.Path, settings: Mapping[str, Any]):
        self._library = _library("mlflow")
        server = os.environ.get("MLFLOW_TRACKING_URI")
        self._client = self._library.MlflowClient(tracking_uri=server or f"sqlite:///{folder.absolute() / 'mlflow.db'}")
        pictures = None if server else (folder / "mlflow").absolute().as_uri()
        self._id = _known(folder, "mlflow", lambda: self._create(folder.name, settings, pictures))
        self._client.update_run(self._id, status="RUNNING")
        self._written: dict[str, int] = {}

    def _create(self, name: str, settings: Mapping[str, Any], pictures: str | None) -> str:
        client = self._client
        known = client.get_experiment_by_name(_PROJECT)
        experiment = known.experiment_id if known else client.create_experiment(_PROJECT, artifact_location=pictures)
        run = client.create_run(experiment, run_name=name)
        for key, value in _flat(settings).items():
            client.log_param(run.info.run_id, key, value)
        return run.info.run_id

    def begin(self, stage: str, step: int) -> None:
        """Looks up how far the stage's curves go."""
        del step
        history = self._client.get_metric_history(self._id, f"{stage}/loss")
        self._written[stage] = max((point.step for point in history), default=0)

    def write(self, report: fit.Report) -> None:
        """Adds the points of one call."""
        if report.step <= self._written[report.stage]:
            return
        now = writers.milliseconds()
        metric = lambda name, value: self._library.entities.Metric(_REFUSED.sub("-", name), value, now, report.step)
        points = [metric(name, value) for name, value in _points(report).items()]
        self._client.log_batch(self._id, metrics=points)

    def picture(self, stage: str, step: int, image: np.ndarray) -> None:
        """Adds a picture."""
        self._client.log_image(self._id, _as_bytes(image), artifact_file=f"{stage}/{step:07d}.png")

    def close(self) -> None:
        """Ends the run."""
        self._client.set_terminated(self._id)


_REFUSED = re.compile(r"[^\w./: -]")  # by MLflow, in names of metrics; those of pairs of modalities have a plus

LOGGERS = {"tensorboard": TensorBoard, "wandb": WandB, "mlflow": MLflow}
_PACKAGES = {"tensorboard": "tensorboardX", "wandb": "wandb", "mlflow": "mlflow"}


def _library(name: str) -> types.ModuleType:
    try:
        return importlib.import_module(_PACKAGES[name])
    except ImportError as error:
        raise ValueError(f'Expected the package {_PACKAGES[name]}, got none: pip install "jnf_jax[{name}]".') from error


def _points(report: fit.Report) -> dict[str, float]:
    points = {"loss": report.loss, **report.metrics}
    if report.validation_loss is not None:
        points["validation_loss"] = report.validation_loss
    return {f"{report.stage}/{name}": value for name, value in points.items()}


def _as_bytes(image: np.ndarray) -> np.ndarray:
    return np.round(255 * np.clip(image, 0, 1)).astype(np.uint8)


def _known(folder: pathlib.Path, name: str, make) -> str:
    """Returns the logger's name of the run in a folder: the one that was kept there, else a new one, which is kept."""
    path = folder / _RUNS
    runs = files.read_object(path) if path.exists() else {}
    if name not in runs:
        runs[name] = make()
        files.write_json(path, runs)
    return runs[name]


def _flat(settings: Any, path: str = "") -> dict[str, str]:
    """Returns dotted name -> text of every setting."""
    if not isinstance(settings, Mapping):
        return {path: str(settings)[:500]}
    return {k: v for name, value in settings.items() for k, v in _flat(value, f"{path}.{name}".lstrip(".")).items()}
