"""What is known of a checkpoint, written beside it once it is whole.

A manifest holds the sha256 of every file and of the values, the shape and type of every leaf, what the state belongs to, and the sha256 of
all that.
"""

import hashlib
import json
import math
import os
import pathlib
import stat
from typing import Any

import jax
import numpy as np

from jnf_jax.training import files


def beside(folder: pathlib.Path) -> pathlib.Path:
    """Returns where the manifest of a checkpoint's folder is."""
    return folder.with_name(f"{folder.name}.json")


def describe(folder: pathlib.Path, state: Any, *, step: int, loss: float | None, about: Any) -> dict[str, Any]:
    """Returns the content of the manifest of a state that was written into a folder.

    Args:
      folder: with the state's files.
      state: pytree of arrays.
      step: its number.
      loss: the validation loss; None or not finite: none is noted.
      about: what the state belongs to, as JSON values; None where nobody knows.
    """
    return {
        "step": step,
        "loss": None if loss is None or not math.isfinite(loss) else loss,
        "about": about,
        "values": digest(state),
        "leaves": leaves(state),
        "files": {name: files.sha256(folder / name) for name in _files(folder)},
    }


def write(path: pathlib.Path, content: dict[str, Any]) -> None:
    """Writes a manifest with its own sum."""
    files.write_json(path, {"sha256": files.json_sum(json.loads(json.dumps(content))), "content": content})


def read(path: pathlib.Path, step: int) -> dict[str, Any]:
    """Returns the content of the manifest of a step.

    Raises:
      files.DamagedError: if it is no manifest, has changed since it was written, or is another step's.
    """
    value = files.read_json(path)
    if isinstance(value, dict) and set(value) == {"leaves", "files"}:  # as they were before they had a sum of their own
        content = value
    elif (
        isinstance(value, dict) and set(value) == {"sha256", "content"} and value["sha256"] == files.json_sum(value["content"])
    ):
        content = value["content"]
    else:
        raise files.DamagedError(f"{path} has changed since it was written")
    if not (_all_of(content.get("leaves"), list) and _all_of(content.get("files"), str)):
        raise files.DamagedError(f"{path} has changed since it was written")
    if content.get("step", step) != step:
        raise files.DamagedError(f"{path} is that of step {content['step']}")
    return content


def damage(folder: pathlib.Path, step: int) -> str | None:
    """Returns what is wrong with the folder of a step, or with its manifest; None where both are whole."""
    try:
        expected = read(beside(folder), step)["files"]
    except files.DamagedError as error:
        return str(error)
    if folder.is_symlink() or not folder.is_dir():
        return f"{folder} is missing"
    found = _files(folder)
    if missing := sorted(set(expected) - set(found)):
        return f"{folder / missing[0]} is missing"
    if foreign := sorted(set(found) - set(expected)):
        return f"{folder / foreign[0]} does not belong there"
    for name, known in expected.items():
        if not stat.S_ISREG((folder / name).lstat().st_mode):
            return f"{folder / name} is no plain file"
        if files.sha256(folder / name) != known:
            return f"{folder / name} has changed since it was written"
    return None


def digest(tree: Any) -> str | None:
    """Returns the sha256 of a tree's names, shapes, types and values; None where a part of it lies in other processes."""
    found = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
            return None
        array = np.asarray(leaf)
        found.update(f"{jax.tree_util.keystr(path)} {array.shape} {array.dtype}\n".encode())
        found.update(np.ascontiguousarray(array).view(np.uint8).data if array.size else b"")
    return found.hexdigest()


def leaves(tree: Any) -> dict[str, list]:
    """Returns path -> [shape, type] of every leaf, an array or its shape."""
    return {
        jax.tree_util.keystr(path): [list(leaf.shape), str(leaf.dtype)]
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def check_leaves(saved: dict, expected: dict, where: str) -> None:
    """Checks that saved leaves are those expected; both are path -> [shape, type].

    Raises:
      ValueError: if they differ; the first one that does is named, and `where` it was looked for.
    """
    for name in [*expected, *saved]:
        if saved.get(name) != expected.get(name):
            describe = lambda leaf: "nothing" if leaf is None else f"{leaf[1]} of shape {tuple(leaf[0])}"
            raise ValueError(f"Expected {describe(expected.get(name))} for {name} in {where}, got {describe(saved.get(name))}.")


def _all_of(value: Any, kind: type) -> bool:
    return isinstance(value, dict) and all(isinstance(entry, kind) for entry in value.values())


def _files(folder: pathlib.Path) -> list[str]:
    """Returns everything below a folder that is no folder; links are not followed."""
    found = []
    for root, folders, names in os.walk(folder, followlinks=False):
        links = [name for name in folders if (pathlib.Path(root) / name).is_symlink()]
        found += [str((pathlib.Path(root) / name).relative_to(folder)) for name in (*names, *links)]
    return sorted(found)
