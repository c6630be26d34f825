"""What an experiment is: its settings, how they are found and changed, what they build. And how a command ends."""

import copy
import dataclasses
import difflib
import errno
import functools
import importlib
import importlib.util
import pathlib
import subprocess
import sys
import traceback
import types
from collections.abc import Iterator, Mapping
from typing import Any

import tyro

from experiments import listing
from jnf_jax import compiling, configs
from jnf_jax.data import source
from jnf_jax.metrics import classifiers as classifiers_lib
from jnf_jax.models import base
from jnf_jax.training import files, fit, sharded

_OF_THE_DISK = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO),
    *(errno.ENOENT, errno.EEXIST, errno.EISDIR, errno.ENOTDIR),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(configs.Component):
    """An experiment.

    Attributes:
      seed: of initialisation and training.
      data: the data set.
      model: the model.
      training: stage -> how it is trained.
      classifiers: the judges of coherence.
    """

    seed: int = 0
    data: configs.Component
    model: configs.Component
    training: Mapping[str, fit.Config]
    classifiers: classifiers_lib.Config = classifiers_lib.Config()


def find(name: str, *, quick: bool = False) -> Config:
    """Returns the config of an experiment, or its size for two CPU cores.

    Args:
      name: one of `listing.names()`, or the path of a Python file, anywhere, that exports `CONFIG` (and `QUICK`, where it has such a size).
      quick: whether the size for two CPU cores is wanted.

    Raises:
      ValueError: if there is none of that name, the file exports none, or it has no such size.
    """
    module = _module(name)
    if not isinstance(getattr(module, "CONFIG", None), Config):
        raise ValueError(f"Expected a file that exports CONFIG, an experiment.Config, got {name!r}.")
    if not quick:
        return module.CONFIG
    if not hasattr(module, "QUICK"):
        raise ValueError(f"Expected an experiment with a quick size, got {name!r}, which has none: it is quick as it is.")
    return module.QUICK


def _module(name: str) -> types.ModuleType:
    if name in (known := listing.names()):
        return importlib.import_module(f"experiments.configs.{name.replace('/', '.')}")
    if not name.endswith(".py"):
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else "`jnf-jax list` lists them."
        raise ValueError(f"Expected the name of an experiment, or the path of a file that exports CONFIG, got {name!r}: {hint}")
    path = pathlib.Path(name)
    if not path.is_file():
        raise FileNotFoundError(f"Expected a file that exports CONFIG, got no file at {name!r}.")
    spec = importlib.util.spec_from_file_location(f"_config_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where `configs` looks up what its classes' annotations name
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        if str(error).startswith("Expected"):
            raise
        lines = [
            frame.lineno
            for frame in traceback.extract_tb(error.__traceback__)
            if pathlib.Path(frame.filename).resolve() == path.resolve()
        ]
        own = error.lineno if isinstance(error, SyntaxError) else None  # a JSON's error has the line of the JSON
        where = f"{name}:{own or (lines or ['?'])[-1]}"
        raise ValueError(f"Expected an experiment file that runs, got {type(error).__name__} at {where}: {error}.") from error
    return module


def parse(config: Config, arguments: list[str], *, program: str) -> Config:
    """Returns the config with every field that a flag names overridden; an unknown or ill-typed one ends the program."""
    return tyro.cli(Config, default=config, args=arguments, prog=program, config=(tyro.conf.AvoidSubcommands,))


class Splits(Mapping):
    """Split -> source; each is made when it is first asked for."""

    def __init__(self, config: configs.Component):
        self._make = functools.cache(lambda split: configs.build(config, split))

    def __getitem__(self, split: source.Split) -> source.Source:
        return self._make(split)

    def complete(self) -> "Splits":
        """Returns the splits' examples that have every modality; errors as in `source.Source.complete`."""
        whole = copy.copy(self)
        whole._make = functools.cache(lambda split: self[split].complete())
        return whole

    def __iter__(self) -> Iterator[str]:
        return iter(source.SPLITS)

    def __len__(self) -> int:
        return len(source.SPLITS)


def build(config: Config) -> tuple[base.Model, Splits]:
    """Returns the model, which takes any number of observations and splits them over all devices, and the splits of its data."""
    data = Splits(config.data)
    return sharded.over(configs.build(config.model, data["test"].specs)), data


def main(function) -> None:
    """Runs a script's `main`; what users got wrong ends it with one clear line and exit code 2.

    Such errors begin with "Expected", by the house's rule; any other is a bug and keeps its traceback.
    """
    compiling.use_compilation_cache()
    try:
        sys.exit(function())
    except ValueError as error:
        if isinstance(error, files.DamagedError) and not str(error).startswith("Expected"):
            error = f"Expected whole files, got a damaged one: {error}."
        if not str(error).startswith("Expected"):
            raise
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        line = str(error)
        if not line.startswith("Expected"):
            if error.errno not in _OF_THE_DISK:
                raise
            where = f" at {error.filename}" if error.filename else ""
            line = f"Expected usable files, got {error.strerror!r}{where}."
        print(f"error: {line}", file=sys.stderr)
        sys.exit(2)
    except subprocess.CalledProcessError as error:  # a command of `jnf-jax` that has said itself what was wrong
        sys.exit(error.returncode)


def check_counts(arguments: Any, *names: str, least: int = 1) -> None:
    """Checks that numbers on the command line make sense.

    Raises:
      ValueError: if one is smaller than `least`.
    """
    for name in names:
        if (value := getattr(arguments, name)) < least:
            raise ValueError(f"Expected --{name.replace('_', '-')} of at least {least}, got {value}.")
