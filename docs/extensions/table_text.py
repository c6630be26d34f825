"""What the tables of committed results are made with."""

import json
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

ROOT = pathlib.Path(__file__).parents[2]
RESULTS = ROOT / "experiments" / "results"


def markdown(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Returns a table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def read(path: pathlib.Path) -> Any:
    """Returns what a file of JSON holds."""
    return json.loads(path.read_text())


def spread(values: Sequence[float], form: str) -> str:
    """Returns mean ± standard deviation, or the mean of one."""
    mean = sum(values) / len(values)
    if len(values) == 1:
        return format(mean, form)
    deviation = (sum((v - mean) ** 2 for v in values) / (len(values) - 1)) ** 0.5
    return f"{mean:{form}} ± {deviation:{form}}"
