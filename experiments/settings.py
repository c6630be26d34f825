"""The settings that people change first, as `--help` shows them; `--help-all` shows every one."""

import dataclasses
import inspect
import re
from collections.abc import Iterator, Mapping
from typing import Any

import rich.box
import rich.console
import rich.table

_FIRST = re.compile(
    r"seed|data\.(likelihood|scale|path)|model\.(latent_dim|beta|network\..*)|training\.\w+\.(num_steps|batch_size|learning_rate)"
)


def show(config: Any) -> None:
    """Prints flag, value and meaning of the settings to change first."""
    table = rich.table.Table(title="settings to change first", title_justify="left", box=rich.box.SIMPLE)
    for column in ("flag", "value", "meaning"):
        table.add_column(column, overflow="fold")
    for name, value, meaning in fields(config):
        if _FIRST.fullmatch(name):
            shown = " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
            table.add_row(f"--{name.replace('_', '-')}", shown, meaning)
    console = rich.console.Console()
    console.print(table)
    console.print("--help-all lists every setting.", highlight=False)


def fields(config: Any, path: str = "") -> Iterator[tuple[str, Any, str]]:
    """Yields (dotted name, value, meaning) of every field, nested configs included."""
    meanings = _meanings(type(config))
    for field in dataclasses.fields(config):
        value, name = getattr(config, field.name), f"{path}{field.name}"
        if dataclasses.is_dataclass(value):
            yield from fields(value, f"{name}.")
        elif isinstance(value, Mapping) and all(map(dataclasses.is_dataclass, value.values())):
            for key, entry in value.items():
                yield from fields(entry, f"{name}.{key}.")
        else:
            yield name, value, meanings.get(field.name, "")


def _meanings(cls: type) -> dict[str, str]:
    _, _, attributes = (inspect.getdoc(cls) or "").partition("Attributes:\n")
    entries = re.findall(r"^  (\w+): (.*(?:\n    .*)*)", attributes, flags=re.MULTILINE)
    return {name: re.sub(r"\s+", " ", text) for name, text in entries}
