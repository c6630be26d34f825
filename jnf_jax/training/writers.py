"""What a run leaves for people: metrics as JSON lines, and progress on the screen. The only place that prints or reads a clock."""

import json
import pathlib
import sys
import time
from types import TracebackType
from typing import Any, Self

import rich.console
import rich.progress

from jnf_jax.training import fit


def milliseconds() -> int:
    """Returns the time of day, as loggers want it, in milliseconds since 1970."""
    return int(1000 * time.time())


class Pace:
    """How many steps to take at once, so that they take about a second: one at first, and never more than twice as many as before.

    As few as that: a program that begins anew for every step asks the system for its temporary arrays each time, a fifth of a slow step.
    """

    def __init__(self, seconds: float = 1.0):
        self._seconds = seconds
        self._num = 1  # taken last
        self._asked: float | None = None

    def __call__(self, left: int) -> int:
        """Returns the number of steps to take next, at most `left`."""
        now = time.monotonic()
        if self._asked is not None:
            a_step = max((now - self._asked) / self._num, 1e-6)
            self._num = max(1, min(2 * self._num, int(self._seconds / a_step)))
        self._asked = now
        self._num = min(self._num, left)
        return self._num


class Every:
    """Whether so many minutes have gone by since it was last so."""

    def __init__(self, minutes: float):
        self._seconds = 60 * minutes
        self._last = time.monotonic()

    def __call__(self) -> bool:
        """Returns whether it is time, and then begins to count anew."""
        now = time.monotonic()
        if now - self._last < self._seconds:
            return False
        self._last = now
        return True


class MetricsFile:
    """Training metrics as JSON lines, one per compiled call: stage, step, loss and the stage's own metrics.

    `seconds` is the time since the row before it, or since the stage began or went on.
    """

    def __init__(self, path: pathlib.Path):
        self._path = path
        self._file = path.open("a")
        self._last = time.monotonic()

    def rewind(self, stage: str, step: int) -> None:
        """Drops rows that a killed run wrote beyond the step its stage continues at."""
        self._last = time.monotonic()
        self._file.close()
        rows = [json.dumps(row) for row in read_metrics(self._path) if row["stage"] != stage or row["step"] <= step]
        temporary = self._path.with_suffix(".tmp")
        temporary.write_text("".join(f"{row}\n" for row in rows))
        temporary.replace(self._path)
        self._file = self._path.open("a")

    def write(self, report: fit.Report) -> None:
        """Appends one report."""
        now = time.monotonic()
        row: dict[str, Any] = {"stage": report.stage, "step": report.step, "time": round(time.time(), 3), "loss": report.loss}
        row["seconds"], self._last = round(now - self._last, 3), now
        if report.validation_loss is not None:
            row["validation_loss"] = report.validation_loss
        self._file.write(json.dumps(row | report.metrics) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def read_metrics(path: pathlib.Path) -> list[dict[str, Any]]:
    """Returns the rows of a metrics file, none where there is no file; lines that hold no row are left out."""
    rows = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):  # the line that was being written when the run was killed
            continue
        if isinstance(row, dict) and isinstance(row.get("stage"), str) and isinstance(row.get("step"), int):
            rows.append(row)
    return rows


class Progress:
    """Progress of several tasks: bars with rate and time left in a terminal, a plain line now and then elsewhere."""

    def __init__(self, *, seconds_between_lines: float = 15.0):
        self._console = rich.console.Console(file=sys.stderr)
        self._seconds = seconds_between_lines
        self._started: dict[str, tuple[float, int]] = {}
        self._spoke: dict[str, float] = {}
        self._tasks: dict[str, rich.progress.TaskID] = {}
        self._bars = None
        if self._console.is_terminal:
            self._bars = rich.progress.Progress(
                rich.progress.TextColumn("{task.description}"),
                rich.progress.BarColumn(),
                rich.progress.MofNCompleteColumn(),
                rich.progress.TextColumn("{task.fields[rate]}"),
                rich.progress.TimeRemainingColumn(),
                rich.progress.TextColumn("{task.fields[note]}"),
                console=self._console,
            )

    def __enter__(self) -> Self:
        if self._bars:
            self._bars.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bars:
            self._bars.stop()

    def update(self, task: str, done: int, total: int, note: str = "") -> None:
        """Shows that `done` of `total` units of `task` are done."""
        now = time.monotonic()
        begun, first = self._started.setdefault(task, (now, done))
        rate = (done - first) / (now - begun) if now > begun else 0.0
        if self._bars:
            speed = f"{rate:.1f}/s"
            if task not in self._tasks:
                self._tasks[task] = self._bars.add_task(task, total=total, rate=speed, note=note)
            self._bars.update(self._tasks[task], completed=done, rate=speed, note=note)
        elif done >= total or now - self._spoke.get(task, -1e9) >= self._seconds:
            self._spoke[task] = now
            known = [f"{rate:.1f}/s", f"{(total - done) / rate:.0f} s left"] if rate and done < total else []
            line = ", ".join([f"{task}: {done}/{total}", *known, *([note] if note else [])])
            self._console.print(line, highlight=False, soft_wrap=True)

    def say(self, text: str) -> None:
        """Prints a line above the bars."""
        (self._bars.console if self._bars else self._console).print(text, highlight=False, soft_wrap=True, markup=False)
