"""Finds everything that a law runs over: each module of a package that exports `Config` and `build`."""

import importlib
import pathlib
import pkgutil
from types import ModuleType

import jnf_jax


def modules(package: str) -> list[ModuleType]:
    """Returns the modules of `jnf_jax.<package>` that define a Config and a build; at least one, or the law would be void."""
    folder = pathlib.Path(jnf_jax.__path__[0]) / package
    found = [importlib.import_module(f"jnf_jax.{package}.{m.name}") for m in pkgutil.iter_modules([str(folder)])]
    found = [m for m in found if hasattr(m, "Config") and hasattr(m, "build")]
    assert found, f"Expected a module with Config and build in jnf_jax/{package}, found none."
    return found


def name(config: object) -> str:
    """Returns a test's id for a config."""
    return type(config).__module__.rsplit(".", 1)[-1] + getattr(config, "bijection", "")
