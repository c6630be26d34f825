"""Configs: frozen dataclasses, built by the module that defines them and written as JSON without pickle.

Every model, flow, network and data set is one file with a `Config(Component)` and a function `build(config, ..)`. `build` here
finds that function from the config's type, so there is no registry: adding a thing is adding a file.
"""

import dataclasses
import importlib
import itertools
import json
import os
import re
import sys
import types
import typing
from collections.abc import Mapping
from typing import Any

_OWN = ("jnf_jax", "experiments")  # packages of the project


@dataclasses.dataclass(frozen=True, kw_only=True)
class Component:
    """Base of every config that `build` can build; annotate a field with it to accept any of them.

    Raises:
      ValueError: if a value does not fit its field's annotation; one could be misspelt, and no file could be read back with it.
    """

    def __post_init__(self):
        hints = typing.get_type_hints(type(self))
        for field in dataclasses.fields(self):
            check_type(f"{type(self).__module__}.{field.name}", getattr(self, field.name), hints[field.name])


class ForeignError(ValueError):
    """A config belongs to a module that is not trusted, or not there."""


def build(config: Component, *args, **kwargs):
    """Returns `build(config, ..)` of the module that defines `type(config)`.

    Raises:
      ValueError: if `config` is not a component, its module has no `build`, or defines a class of that name again, whose `build` it may be.
    """
    kind = type(config)
    module = sys.modules.get(kind.__module__)
    if not isinstance(config, Component) or not hasattr(module, "build"):
        raise ValueError(f"Expected a config of a module with a function `build`, got {config!r}.")
    if getattr(module, kind.__qualname__, kind) is not kind:
        raise ValueError(
            f"Expected one class {kind.__qualname__} and one function `build` in {kind.__module__}, got another class of that name "
            "since: give each component a file of its own."
        )
    return module.build(config, *args, **kwargs)


def to_json(config: Any) -> Any:
    """Returns a config as JSON values; each dataclass carries the name of its module and class under `type`."""
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        fields = {f.name: to_json(getattr(config, f.name)) for f in dataclasses.fields(config)}
        return {"type": f"{type(config).__module__}:{type(config).__qualname__}", **fields}
    if isinstance(config, Mapping):
        return {str(k): to_json(v) for k, v in config.items()}
    if isinstance(config, (tuple, list)):
        return [to_json(v) for v in config]
    if config is None or isinstance(config, (bool, int, float, str)):
        return config
    raise ValueError(f"Expected a config of dataclasses, mappings, sequences, numbers and strings, got {config!r}.")


def trusted() -> tuple[str, ...]:
    """Returns the top-level packages that JSON may name: those of the project, and those of `JNF_MODULES`, separated by commas."""
    return (*_OWN, *filter(None, map(str.strip, os.environ.get("JNF_MODULES", "").split(","))))


def foreign_packages(value: Any) -> list[str]:
    """Returns the top-level packages, other than the project's, that JSON values name as types."""
    if isinstance(value, dict):
        own = re.split(r"[.:]", str(value.get("type", _OWN[0])))[0]
        return sorted({own, *itertools.chain(*map(foreign_packages, value.values()))} - {*_OWN})
    return sorted({*itertools.chain(*map(foreign_packages, value))}) if isinstance(value, (list, tuple)) else []


def from_json(value: Any, *, modules: tuple[str, ...] | None = None) -> Any:
    """Returns the config that `to_json` wrote.

    Args:
      value: what `json.load` returned.
      modules: top-level packages whose dataclasses may be built, None: `trusted()`; nothing else is imported.

    Raises:
      ForeignError: if a type lies outside `modules`, or its module is not there.
      ValueError: if a type is no dataclass, or a field is unknown or of the wrong type.
    """
    modules = trusted() if modules is None else modules
    if isinstance(value, list):
        return tuple(from_json(v, modules=modules) for v in value)
    if not isinstance(value, dict):
        return value
    if "type" not in value:
        return {k: from_json(v, modules=modules) for k, v in value.items()}
    cls = _config_class(value["type"], modules)
    known = {f.name for f in dataclasses.fields(cls)}
    if unknown := set(value) - known - {"type"}:
        raise ValueError(f"Expected the fields {sorted(known)} of {value['type']}, got also {sorted(unknown)}.")
    fields = {k: from_json(v, modules=modules) for k, v in value.items() if k != "type"}
    hints = typing.get_type_hints(cls)
    for name, field in fields.items():
        check_type(f"{value['type']}.{name}", field, hints[name])
    return cls(**fields)


def check_type(name: str, value: Any, annotation: Any) -> None:
    """Raises a ValueError that names the field where a value does not fit its annotation (one level deep)."""
    origin = typing.get_origin(annotation)
    if annotation is Any:
        return
    if origin in (typing.Union, types.UnionType):
        options = typing.get_args(annotation)
        if any(_fits(value, option) for option in options):
            return
    elif _fits(value, annotation):
        return
    raise ValueError(f"Expected {annotation} for {name}, got {value!r}.")


def _fits(value: Any, annotation: Any) -> bool:
    origin = typing.get_origin(annotation) or annotation
    if origin is typing.Literal:
        return value in typing.get_args(annotation)
    if origin is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if origin is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, origin)


def _config_class(name: str, modules: tuple[str, ...]) -> type:
    module_name, _, qualname = str(name).partition(":")
    if module_name.split(".")[0] not in modules:
        raise ForeignError(
            f"Expected a config of a module in {modules}, got {name!r}: put a component of your own into a module of its own, and name that "
            "in the environment variable JNF_MODULES."
        )
    try:
        cls = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise ForeignError(f"Expected a config of a module that is installed, got {name!r}: {error}.") from error
    for part in qualname.split("."):
        cls = getattr(cls, part, None)
    if not (isinstance(cls, type) and dataclasses.is_dataclass(cls)):
        raise ValueError(f"Expected the name of a dataclass, got {name!r}.")
    return cls


def differences(old: Any, new: Any, path: str = "", *, common: bool = False) -> dict[str, tuple[Any, Any]]:
    """Returns the dotted names of JSON values that differ -> (old, new).

    Args:
      old: one value.
      new: another.
      path: their name.
      common: whether fields that only one of two configs has do not count; nor does the module of a config that was, or is, `__main__`.
        Names of a plain mapping always count, but for those of `old` and `new` themselves.
    """
    if isinstance(old, dict) and isinstance(new, dict) and _same_type(old, new, loosely=common):
        fields = common and (not path or "type" in old)
        names = sorted(({*old} & {*new} if fields else {*old, *new}) - {"type"})
        found = {}
        for name in names:
            found |= differences(old.get(name), new.get(name), f"{path}.{name}".lstrip("."), common=common)
        return found
    return {} if old == new else {path: (old, new)}


def reordered(old: Any, new: Any, name: str) -> dict[str, tuple[list, list]]:
    """Returns the two orders under this name where mappings have the same names in another order; `differences` knows no order."""
    both = isinstance(old, Mapping) and isinstance(new, Mapping) and set(old) == set(new)
    return {name: (list(old), list(new))} if both and list(old) != list(new) else {}


def _same_type(old: dict, new: dict, *, loosely: bool) -> bool:
    types = old.get("type"), new.get("type")
    if types[0] == types[1]:
        return True
    if None in types or not loosely:
        return False
    modules, names = zip(*(str(kind).split(":", 1) for kind in types), strict=True)
    return "__main__" in modules and names[0] == names[1]


def told(differing: Mapping[str, tuple[Any, Any]]) -> str:
    """Returns differences as text: `name: old -> new`, separated by semicolons."""
    return "; ".join(f"{name}: {_short(old)} -> {_short(new)}" for name, (old, new) in differing.items())


def _short(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 80 else f"{text[:77]}..."
