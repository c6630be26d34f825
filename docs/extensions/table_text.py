"""What the tables of committed results are made with."""

import json
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

ROOT = pathlib.Path(__file__).parents[2]


def markdown(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Returns a table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def read(path: pathlib.Path) -> Any:
    """Returns what a file of JSON holds."""
    return json.loads(path.read_text())
