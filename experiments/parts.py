"""What a long measurement has found so far, so that one that was killed goes on with the part that it was at."""

import functools
import json
import pathlib
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jnf_jax import subsets
from jnf_jax.training import files, writers


class Parts:
    """Parts of a measurement, each written to a file as soon as it is found.

    Args:
      path: of the file.
      asked: what the measurement depends on, as JSON values; parts of another one are not taken over, nor are those of a damaged file.
    """

    def __init__(self, path: pathlib.Path, asked: Mapping[str, Any]):
        self._path = path
        self._asked = _as_json(asked)
        found = known(path)
        done, before = found.get("done"), found.get("seconds")
        same = found.get("asked") == self._asked and isinstance(done, dict) and isinstance(before, int | float)
        self._done = done if same and found.get("sha256") == files.json_sum(done) else {}
        self._before = before if self._done else 0.0
        self._begun = time.monotonic()

    @property
    def seconds(self) -> float:
        """How long it took so far, earlier processes' parts included."""
        return round(self._before + time.monotonic() - self._begun, 1)

    def get(self, name: str, measure: Callable[[], Any]) -> Any:
        """Returns a part as JSON values: the one that was found before, else what `measure()` finds."""
        if name not in self._done:
            self._done[name] = _as_json(measure())
            sha256 = files.json_sum(self._done)
            files.write_json(self._path, {"asked": self._asked, "seconds": self.seconds, "sha256": sha256, "done": self._done})
        return self._done[name]

    def by_subset(
        self, todo: Sequence[subsets.Subset], measure: Callable[[subsets.Subset], Any], progress: writers.Progress
    ) -> dict[subsets.Subset, Any]:
        """Returns subset -> what `measure(subset)` finds, a part each."""
        found = {}
        for done, subset in enumerate(todo):
            label = subsets.label(subset)
            progress.update("subsets", done, len(todo), label)
            found[subset] = self.get(f"subset {label}", functools.partial(measure, subset))
        progress.update("subsets", len(todo), len(todo), "")
        return found

    def remove(self) -> None:
        """Removes the file; the whole result has been written."""
        self._path.unlink(missing_ok=True)


def known(path: pathlib.Path) -> dict:
    """Returns what a JSON file of results holds, nothing where there is none; a damaged one is set aside, and this is said."""
    if not path.exists() and not path.is_symlink():
        return {}
    try:
        return files.read_object(path)
    except files.DamagedError as error:
        aside = path.with_name(f"{path.name}.damaged")
        path.rename(aside)
        print(f"warning: {error}; it is now {aside.name}, and is made again", file=sys.stderr)
        return {}


def _as_json(value: Any) -> Any:
    return json.loads(json.dumps(value, default=str))
