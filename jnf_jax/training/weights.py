"""Weights that people share: a folder with two files of plain data.

    model.safetensors   the arrays; a name is a leaf's path in params, for instance `decoders/m0/Dense_0/kernel`
    model.json          the model's config, its modalities, the sha256 of the arrays' file, and the sum of all that

Reading it runs no code of the folder and follows no path in it. The arrays need numpy alone:

    safetensors.numpy.load_file("model.safetensors")
"""

import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import safetensors
import safetensors.numpy

import jnf_jax
from jnf_jax import configs, types
from jnf_jax import specs as specs_lib
from jnf_jax.models import base
from jnf_jax.training import files, manifests

WEIGHTS = "model.safetensors"
MODEL = "model.json"
_SAME = 1e-3  # of a deviation, by which another processor may find another mean
_FORMAT = "jnf_jax/2"
_FIELDS = ("format", "version", "config", "specs", "sha256", "sum")


def save(folder: str | os.PathLike, params: types.Params, *, config: configs.Component, specs: specs_lib.Specs) -> None:
    """Writes a model's parameters and what it takes to build it into a folder; `model.json` comes last.

    Args:
      folder: made where it is not there.
      params: all parameters of the model.
      config: the model's.
      specs: the modalities, in order.

    Raises:
      ValueError: if the folder holds weights already, or `params` are not those of the model that `config` builds.
    """
    folder = pathlib.Path(folder)
    if (folder / MODEL).exists():
        raise ValueError(f"Expected a folder without weights, got {folder}, which has a {MODEL}.")
    arrays = _named(jax.device_get(params))
    _check(arrays, configs.build(config, specs), "the parameters to save (networks of your own are in no config)")
    folder.mkdir(parents=True, exist_ok=True)
    content = safetensors.numpy.save({name: np.asarray(x, order="C") for name, x in arrays.items()})
    (folder / WEIGHTS).write_bytes(content)  # `save_file` would make a file that its owner alone can read
    about = {
        "format": _FORMAT,
        "version": jnf_jax.__version__,
        "config": configs.to_json(config),
        "specs": configs.to_json(specs),
        "sha256": files.sha256(folder / WEIGHTS),
    }
    files.write_json(folder / MODEL, about | {"sum": _sum(about)})


def load(folder: str | os.PathLike, *, modules: tuple[str, ...] = ()) -> tuple[base.Model, types.Params]:
    """Returns the model and its parameters that `save` wrote.

    Args:
      folder: that `save` wrote to.
      modules: top-level packages beside `configs.trusted()` whose configs may be built; nothing else is imported.

    Raises:
      ValueError: if a file is missing, damaged or of another form; a config lies outside `modules`; or a leaf has another name, shape or type
        than the model's.
    """
    about, modules = describe(folder), (*configs.trusted(), *modules)
    specs = configs.from_json(about["specs"], modules=modules)
    if not (isinstance(specs, Mapping) and specs and all(isinstance(s, specs_lib.ModalitySpec) for s in specs.values())):
        raise ValueError(f"Expected modalities, each a ModalitySpec, in {pathlib.Path(folder) / MODEL}, got {specs!r}.")
    model = configs.build(configs.from_json(about["config"], modules=modules), specs)
    return model, read(model, folder)


def read(model: base.Model, folder: str | os.PathLike) -> types.Params:
    """Returns the parameters in a folder that `save` wrote, for a model that is built already.

    Raises:
      ValueError: if a file is missing, damaged or of another form, a leaf has another name, shape or type than the model's, or the weights
        belong to other settings of it.
    """
    about = describe(folder)
    _check_about(model, about["config"], about["specs"], pathlib.Path(folder) / MODEL)
    path = pathlib.Path(folder) / WEIGHTS
    try:
        arrays = safetensors.numpy.load_file(path)
    except safetensors.SafetensorError as error:
        raise ValueError(f"Expected a safetensors file, got {path}: {error}.") from error
    like = _check(arrays, model, str(path))
    return jax.tree_util.tree_map_with_path(lambda leaf, _: jax.device_put(arrays[_name(leaf)]), like)


def describe(folder: str | os.PathLike) -> dict[str, Any]:
    """Returns what `model.json` says, once it and the checksum of the arrays' file are right.

    Raises:
      ValueError: if a file is missing or damaged, or of another form.
    """
    folder = pathlib.Path(folder)
    for name in (MODEL, WEIGHTS):
        if not (folder / name).is_file():
            raise ValueError(f"Expected a folder with {MODEL} and {WEIGHTS}, got {folder} without {name}.")
    try:
        about = json.loads((folder / MODEL).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"Expected JSON in {folder / MODEL}, got something else: {error}.") from error
    if not isinstance(about, dict) or set(about) != set(_FIELDS) or about["format"] != _FORMAT:
        found = about.get("format", sorted(about)) if isinstance(about, dict) else type(about).__name__
        raise ValueError(f"Expected the fields {list(_FIELDS)} of format {_FORMAT!r} in {folder / MODEL}, got {found!r}.")
    if (found := _sum(about)) != about["sum"]:
        raise ValueError(f"Expected the sum {about['sum']} of {folder / MODEL}, got {found}: the file is damaged.")
    if (found := files.sha256(folder / WEIGHTS)) != about["sha256"]:
        raise ValueError(f"Expected the sha256 {about['sha256']} of {folder / WEIGHTS}, got {found}: the file is damaged.")
    return about


def found(folder: str | os.PathLike) -> bool:
    """Returns whether a folder is one of shared weights."""
    return (pathlib.Path(folder) / MODEL).exists()


def _check_about(model: base.Model, config: Any, specs: Any, where: pathlib.Path) -> None:
    """Raises a ValueError where a config and specs, as JSON values, are those of another model."""
    saved = {"specs": {name: _law(spec) for name, spec in specs.items()} if isinstance(specs, Mapping) else specs}
    own = {"specs": {name: configs.to_json(spec.law) for name, spec in model.specs.items()}}
    order = configs.reordered(saved["specs"], own["specs"], "order of specs")
    for stage in model.stages:
        settings = {"model": base.settings_of(model.config, stage.name)}
        known = {"model": config} if settings["model"] else {}
        if differing := configs.differences(saved | known, own | settings, common=True) | order:
            raise ValueError(f"Expected the weights of this model, got {where} of another: {configs.told(differing)}.")
    for name, spec in model.specs.items():  # of equal shapes by now
        _check_standardised(name, specs[name], spec)


def _check_standardised(name: str, saved: Mapping[str, Any], spec: specs_lib.ModalitySpec) -> None:
    """Raises a ValueError where data are standardised by other numbers than those that weights were trained on."""
    before = (saved.get("mean"), saved.get("deviation"))
    if None in before or spec.mean is None:
        return
    shift = np.abs(np.subtract(before[0], spec.mean)) / np.abs(before[1])
    factor = np.abs(np.divide(spec.deviation, before[1]) - 1)
    if max(shift.max(), factor.max()) > _SAME:
        raise ValueError(
            f"Expected values of {name!r} standardised as those that the weights were trained on, got others: give the reader of the data "
            "the specs of the weights, `specs=weights.load(folder)[0].specs`."
        )


def _law(spec: Any) -> Any:
    names = specs_lib.ModalitySpec(shape=(1,)).law
    return {name: spec.get(name) for name in names} if isinstance(spec, Mapping) else spec


def _sum(about: Mapping[str, Any]) -> str:
    return files.json_sum({name: value for name, value in about.items() if name != "sum"})


def _check(arrays: Mapping[str, np.ndarray], model: base.Model, where: str) -> types.Params:
    """Returns the model's params as shapes, once arrays have their names, shapes and types."""
    like = jax.eval_shape(model.init, jax.random.key(0))
    form = lambda leaves: {name: [list(leaf.shape), str(leaf.dtype)] for name, leaf in leaves.items()}
    manifests.check_leaves(form(arrays), form(_named(like)), where)
    return like


def _named(params: types.Params) -> dict[str, Any]:
    return {_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(params)}


def _name(path: tuple) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")
