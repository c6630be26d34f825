"""What is told of a training while it runs: rows of `metrics.jsonl`, what loggers take, and a line of progress."""

import functools
import pathlib
from collections.abc import Callable, Sequence

import numpy as np

from experiments import experiment
from jnf_jax import configs, types
from jnf_jax.training import fit, loggers, processes, writers


class Reporter:
    """Tells of a training; of several processes the first one does.

    Args:
      workdir: folder of the run.
      config: the experiment.
      log: names of loggers.
      progress: the line that shows how far it is.
      preview: stage -> what draws a picture of it from all parameters; None where it has none.
      continued: whether the run was begun before.
    """

    def __init__(
        self,
        workdir: pathlib.Path,
        config: experiment.Config,
        log: Sequence[str],
        progress: writers.Progress,
        preview: Callable[[str], Callable[[types.Params], np.ndarray] | None],
        *,
        continued: bool,
    ):
        self._first = processes.is_first()
        self._metrics = writers.MetricsFile(workdir / "metrics.jsonl") if self._first else None
        self._training = config.training
        self._progress = progress
        missing = lambda name, error: self.warn(f"{name} is told nothing: {type(error).__name__}: {error}")
        started = functools.partial(loggers.start, log, workdir, configs.to_json(config))
        self._loggers = started(on_failure=missing if continued else None) if self._first else []
        self._preview = preview
        self._continued = continued

    def warn(self, line: str) -> None:
        """Shows a warning."""
        self._progress.say(f"warning: {line}")

    def on_report(self, report: fit.Report) -> None:
        """Tells of a compiled call."""
        if not self._first:
            return
        try:
            self._metrics.write(report)
        except OSError as error:  # a full disk costs rows, and the run goes on
            self.warn(f"metrics were not written: {error.strerror}")
        self._tell(lambda logger: logger.write(report))
        self._progress.update(f"stage {report.stage}", report.step, report.num_steps, f"loss {report.loss:.4g}")

    def on_validation(self, report: fit.Report, params: types.Params) -> None:
        """Draws what loggers show beside a validation."""
        if self._loggers and (draw := self._preview(report.stage)) is not None:
            try:
                image = draw(params)
            except Exception as error:  # a picture is not worth a run
                self.warn(f"no picture of stage {report.stage}: {type(error).__name__}: {error}")
                return
            self._tell(lambda logger: logger.picture(report.stage, report.step, image))

    def on_resume(self, stage: str, step: int, damaged: list[str]) -> None:
        """Tells where a stage goes on, and forgets what was told of the steps that are taken again."""
        if not self._first:
            return
        self._metrics.rewind(stage, step)
        self._tell(lambda logger: logger.begin(stage, step))
        for line in damaged:
            self.warn(f"passed over: {line}")
        if step:
            self._progress.say(f"stage {stage}: continuing at step {step}")
        elif self._continued and stage in self._training:
            self._progress.say(f"stage {stage}: no checkpoint yet, starting at step 0")

    def close(self) -> None:
        """Writes what is left."""
        if self._first:
            self._metrics.close()
        self._tell(lambda logger: logger.close())

    def _tell(self, what: Callable[[loggers.Logger], None]) -> None:
        """Tells all loggers; one that fails, for its server is down for instance, is told nothing more, and the run goes on."""
        for logger in list(self._loggers):
            try:
                what(logger)
            except Exception as error:  # each library has kinds of its own
                self._loggers.remove(logger)
                self.warn(f"{type(logger).__name__} is told nothing more: {type(error).__name__}: {error}")
