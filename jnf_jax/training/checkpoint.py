"""Checkpoints by Orbax that are either whole or not there.

Orbax commits a step by renaming its folder; afterwards a manifest with the sha256 of every file and the shape and type of every leaf is
written beside it. A step without a manifest was never finished, and one whose files differ from it was damaged:
neither is restored. The newest whole step is, and training from there gives the same result, only later.
"""

import hashlib
import json
import os
import pathlib
import shutil
from typing import Any

import jax
from orbax.checkpoint import v1 as ocp


class Directory:
    """The checkpoints of one stage, in a folder of their own; the newest `keep` are kept.

    Attributes:
      path: the folder.
      damaged: what `newest` and `latest` passed over, one line each.
    """

    def __init__(self, path: str | os.PathLike, *, keep: int = 2):
        self.path = pathlib.Path(path).absolute()
        self.damaged: list[str] = []
        self._keep = keep

    def steps(self) -> list[int]:
        """Returns the finished steps, oldest first; their files are not checked here."""
        return sorted(int(p.stem) for p in self.path.glob("*.json") if p.stem.isdigit() and (self.path / p.stem).is_dir())

    def save(self, state: Any, *, step: int) -> None:
        """Writes a state and returns once it is safe; older steps beyond the newest `keep` are deleted afterwards."""
        self.path.mkdir(parents=True, exist_ok=True)
        folder = self.path / str(step)
        self._manifest(step).unlink(missing_ok=True)  # from here to the end this step does not exist
        shutil.rmtree(folder, ignore_errors=True)
        ocp.save(folder, state)
        manifest = {"leaves": _leaves(state), "files": {name: sha256(folder / name) for name in _files(folder)}}
        write_json(self._manifest(step), manifest)
        for old in self.steps()[: -self._keep]:
            self._manifest(old).unlink()
            shutil.rmtree(self.path / str(old))

    def latest(self, like: Any) -> Any | None:
        """Returns the newest whole state, None where no step was ever finished.

        Args:
          like: a state of the same structure, shapes and types, placed where the restored one shall be.

        Raises:
          ValueError: if the saved leaves differ from those of `like` (the first one is named), or every step is damaged.
        """
        step = self.newest()
        if step is None:
            return None
        check_leaves(
            json.loads(self._manifest(step).read_text())["leaves"], _leaves(like), f"the checkpoint {self.path / str(step)}"
        )
        return ocp.load(self.path / str(step), like)

    def newest(self) -> int | None:
        """Returns the newest whole step, None where no step was ever finished.

        Raises:
          ValueError: if every step is damaged.
        """
        self.damaged.clear()
        for step in reversed(self.steps()):
            trouble = _damage(self.path / str(step), json.loads(self._manifest(step).read_text())["files"])
            if not trouble:
                return step
            self.damaged.append(trouble)
        if self.damaged:
            raise ValueError(f"Expected a whole checkpoint in {self.path}, got damaged ones only: {'; '.join(self.damaged)}.")
        return None

    def digests(self) -> dict[str, str] | None:
        """Returns file -> sha256 of the newest whole step, None where no step was ever finished.

        Raises:
          ValueError: if every step is damaged.
        """
        step = self.newest()
        return None if step is None else json.loads(self._manifest(step).read_text())["files"]

    def check(self, like: Any) -> None:
        """Checks that the newest finished step has the leaves of `like`, arrays or their shapes.

        Raises:
          ValueError: if they differ (the first one is named).
        """
        for step in self.steps()[-1:]:
            check_leaves(
                json.loads(self._manifest(step).read_text())["leaves"], _leaves(like), f"the checkpoint {self.path / str(step)}"
            )

    def _manifest(self, step: int) -> pathlib.Path:
        return self.path / f"{step}.json"


def write_json(path: pathlib.Path, value: Any) -> None:
    """Writes JSON so that a reader sees the old file or the new one, never half of it."""
    write_text(path, json.dumps(value, indent=1))


def write_text(path: pathlib.Path, text: str) -> None:
    """Writes a file so that a reader sees the old one or the new one, never half of it."""
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _leaves(tree: Any) -> dict[str, list]:
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


def _files(folder: pathlib.Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def sha256(path: pathlib.Path) -> str:
    """Returns the sha256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _damage(folder: pathlib.Path, files: dict[str, str]) -> str | None:
    for name, digest in files.items():
        path = folder / name
        if not path.is_file():
            return f"{path} is missing"
        if sha256(path) != digest:
            return f"{path} has changed since it was written"
    return None
