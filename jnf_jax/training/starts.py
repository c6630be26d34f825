"""What training starts from where that is not random: the parameters of another training."""

import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jnf_jax import types
from jnf_jax.models import base
from jnf_jax.training import checkpoint, manifests, weights


def read(model: base.Model, folder: str | os.PathLike) -> types.Params:
    """Returns all entries that a model's training begins from, of shared weights or of the finished stages of a training's folder.

    Args:
      model: whose training it is; its settings may be others than those of the weights.
      folder: that `weights.save` wrote, or of `stages.train`.

    Raises:
      ValueError: if a stage is not finished, a file is damaged, the modalities are others or in another order, or a leaf has another shape or
        type; the first one is named.
    """
    folder, like = pathlib.Path(folder), blank(model)
    if weights.found(folder):
        theirs, params = weights.load(folder)
        names = list(theirs.specs)
    else:
        params, names = {}, list(model.specs)
        for stage in _begun(model):
            done = checkpoint.Directory(folder / "params" / stage.name)
            if done.newest() is None:
                raise ValueError(f"Expected shared weights, or a run whose stage {stage.name!r} is finished, got {folder}.")
            names = list((done.about() or {}).get("specs", names))
            params |= done.latest({name: like[name] for name in stage.trainable})
    if names != list(model.specs):  # flows are stacked, and features joined, in the order of the modalities
        raise ValueError(f"Expected weights of the modalities {list(model.specs)} in this order, got {names} in {folder}.")
    start = check(model, params)
    if lacking := sorted(set(like) - set(start)):
        raise ValueError(f"Expected weights of the whole model, got none of {lacking} in {folder}.")
    return start


def check(model: base.Model, start: types.Params) -> types.Params:
    """Returns the entries of `start` that training begins from; the others are fitted outright.

    Args:
      model: whose training it is.
      start: parameters, or some entries of them.

    Raises:
      ValueError: if it is no mapping or has an entry that the model has not, or a leaf of another shape or type; the first one is named.
    """
    known = jax.eval_shape(model.init, jax.random.key(0))
    if not isinstance(start, Mapping) or not set(start) <= set(known):
        got = sorted(start) if isinstance(start, Mapping) else type(start).__name__
        raise ValueError(f"Expected a start of some of the model's entries {list(known)}, got {got}.")
    like = blank(model)
    taken = {name: start[name] for name in sorted(set(like) & set(start))}
    manifests.check_leaves(_form(taken), _form({name: like[name] for name in taken}), "what training starts from")
    return jax.tree.map(jnp.asarray, taken)


def blank(model: base.Model) -> types.Params:
    """Returns arrays of 0 in place of the entries that training begins from."""
    params = jax.eval_shape(model.init, jax.random.key(0))
    names = sorted({name for stage in _begun(model) for name in stage.trainable})
    return {name: jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), params[name]) for name in names}


def about(start: types.Params | None) -> dict[str, Any]:
    """Returns what stages that were trained from it belong to beside the rest, as JSON values."""
    return {"start": None if start is None else manifests.digest(start)}


def check_about(model: base.Model, folder: pathlib.Path, start: types.Params) -> None:
    """Raises a ValueError where something of the model's stages that a folder holds was trained from another start."""
    for stage in model.stages:
        for kind in ("params", "checkpoints"):
            checkpoint.Directory(folder / kind / stage.name, about=about(start)).check_about()


def _begun(model: base.Model) -> list[base.Stage]:
    """Returns the stages whose parameters are trained from what they are, and not fitted first."""
    return [stage for stage in model.stages if stage.loss is not None and stage.solve is None]


def _form(tree: types.Params) -> dict[str, Any]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): [list(leaf.shape), str(leaf.dtype)] for path, leaf in leaves
    }
