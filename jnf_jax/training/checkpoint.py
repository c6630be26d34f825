"""Checkpoints by Orbax that are either whole or not there.

A state is copied to the host, and a thread writes it while training goes on. Orbax commits a step by renaming its folder; afterwards a manifest
is written beside it: the sha256 of every file and of the values, the shape and type of every leaf, what the state belongs to, and the sha256
of all that. A step without a manifest was never finished, and one that differs from its manifest was damaged: neither is
restored. The newest whole step is, and training from there gives the same result, only later.
"""

import concurrent.futures
import dataclasses
import hashlib
import json
import math
import os
import pathlib
import shutil
import stat
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from jnf_jax import configs
from jnf_jax.training import files


@dataclasses.dataclass(frozen=True, kw_only=True)
class Policy:
    """Which checkpoints are kept, and what is done about damaged ones; the one of the lowest validation loss is kept always.

    Attributes:
      keep: the newest so many are kept.
      keep_every: those at multiples of so many steps are kept as well; None keeps none.
      strict: whether a damaged checkpoint is an error even where an older one is whole.
    """

    keep: int = 2
    keep_every: int | None = None
    strict: bool = False

    def __post_init__(self):
        for name in ("keep", "keep_every"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ValueError(f"Expected a {name} of at least 1, got {value}.")


class SaveError(ValueError):
    """A state could not be written; earlier ones are as they were."""


@dataclasses.dataclass(frozen=True)
class Health:
    """How one checkpoint is.

    Attributes:
      step: its step.
      loss: the validation loss it was saved with; None where there was no validation.
      num_bytes: of its files.
      trouble: what is wrong with it; None where it is whole.
    """

    step: int
    loss: float | None
    num_bytes: int
    trouble: str | None


class Directory:
    """The checkpoints of one stage, in a folder of their own. One process writes there at a time; `processes.shared` makes it several processes' own.

    Attributes:
      path: the folder.
      damaged: what `newest` and `latest` passed over, one line each.
      policy: which checkpoints are kept.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        *,
        policy: Policy = Policy(),
        about: Mapping[str, Any] | None = None,
        on_trouble: Callable[[str], None] = lambda line: None,
    ):
        """Looks at a folder; nothing is made before the first save.

        Args:
          path: the folder.
          policy: which checkpoints are kept.
          about: what the states belong to, as JSON values; one that belongs to something else is refused. None asks for nothing.
          on_trouble: called with a line where a state could not be written.
        """
        self.path = pathlib.Path(path).absolute()
        self.damaged: list[str] = []
        self.policy = policy
        self._about = None if about is None else json.loads(json.dumps(about))
        self._on_trouble = on_trouble
        self._pending: concurrent.futures.Future | None = None
        self._trouble: str | None = None

    def steps(self) -> list[int]:
        """Returns the finished steps, oldest first; nothing in them is checked here."""
        self.settle()
        if _executor is not None:  # a training that was interrupted in this process may have left a write under way
            _executor.submit(lambda: None).result()
        return sorted(int(p.stem) for p in self.path.glob("*.json") if _is_step(p.stem))

    def save(self, state: Any, *, step: int, loss: float | None = None) -> None:
        """Copies a state to the host and has it written; older ones that the policy does not keep are deleted afterwards.

        Where the state before this one could not be written, `on_trouble` is called and this one is tried.

        Args:
          state: pytree of arrays.
          step: its number.
          loss: the validation loss; the state of the lowest one is kept.
        """
        self.settle()
        host = jax.tree.map(lambda leaf: np.array(leaf, copy=True), state)  # the next step may overwrite the device's
        self._pending = _writer().submit(self._write, host, step, loss)

    def wait(self) -> None:
        """Returns once the last state is safe.

        Raises:
          SaveError: if it could not be written.
        """
        self.settle()
        if self._trouble is not None:
            raise SaveError(f"Expected to save a checkpoint, got: {self._trouble}. Earlier ones are whole.")

    def latest(self, like: Any) -> Any | None:
        """Returns the newest whole state, None where no step was ever finished.

        Args:
          like: a state of the same structure, shapes and types, placed where the restored one shall be, or its shapes with shardings.

        Raises:
          ValueError: if the saved leaves differ from those of `like` (the first one is named), or belong to something else.
          files.DamagedError: as `newest`.
        """
        self.damaged.clear()
        for step in reversed(self.steps()):
            if (trouble := self._damage(step)) is None:
                content = self._manifest(step)
                self._check_about(content, step)
                check_leaves(content["leaves"], _leaves(like), f"the checkpoint {self._folder(step)}")
                state = _orbax().load(self._folder(step), like)
                if content.get("values") in (None, digest(state)):
                    return state
                trouble = f"{self._folder(step)} holds other values than were saved"
            self._pass_over(trouble)
        return self._none_whole()

    def newest(self) -> int | None:
        """Returns the newest whole step, None where no step was ever finished.

        Raises:
          files.DamagedError: if every step is damaged, or the newest one under a strict policy.
        """
        self.damaged.clear()
        for step in reversed(self.steps()):
            if (trouble := self._damage(step)) is None:
                return step
            self._pass_over(trouble)
        return self._none_whole()

    def digests(self) -> dict[str, str] | None:
        """Returns file -> sha256 of the newest whole step, None where no step was ever finished; errors as `newest`."""
        step = self.newest()
        return None if step is None else self._manifest(step)["files"]

    def about(self) -> dict[str, Any] | None:
        """Returns what the newest whole step belongs to, None where nobody knows; errors as `newest`."""
        step = self.newest()
        return None if step is None else self._manifest(step).get("about")

    def check(self, like: Any) -> None:
        """Checks that the newest whole step has the leaves of `like`, arrays or their shapes, and belongs to what this directory is about.

        Raises:
          ValueError: if they differ (the first one is named), or as `newest`.
        """
        if (step := self.newest()) is not None:
            content = self._manifest(step)
            self._check_about(content, step)
            check_leaves(content["leaves"], _leaves(like), f"the checkpoint {self._folder(step)}")

    def check_about(self) -> None:
        """Checks that the newest whole step, where there is one, belongs to what this directory is about.

        Raises:
          ValueError: if it belongs to something else.
        """
        step = next((step for step in reversed(self.steps()) if self._damage(step) is None), None)
        if step is not None:
            self._check_about(self._manifest(step), step)

    def adopt(self, about: Mapping[str, Any]) -> None:
        """Changes what the newest whole step belongs to, in these entries."""
        if (step := self.newest()) is not None and (content := self._manifest(step)).get("about") not in (None, {**about}):
            _write_manifest(self._manifest_path(step), content | {"about": content["about"] | dict(about)})

    def set_aside(self) -> str:
        """Renames the folder, so that what is in it stays to be looked at and nothing is found here any more; returns its new name."""
        self.settle()
        aside = self.path.with_name(f"{self.path.name}.damaged")
        _remove(aside)
        self.path.rename(aside)
        return aside.name

    def health(self) -> list[Health]:
        """Returns how each step is, oldest first; every file is read."""
        found = []
        for step in self.steps():
            try:
                loss = self._manifest(step).get("loss")
            except files.DamagedError:
                loss = None
            folder = self._folder(step)
            size = sum(p.lstat().st_size for p in folder.rglob("*") if p.is_file()) if folder.is_dir() else 0
            found.append(Health(step, loss, size, self._damage(step)))
        return found

    def settle(self) -> None:
        """Waits for the writer; where the state could not be written, `on_trouble` is called."""
        if self._pending is None:
            return
        pending, self._pending = self._pending, None
        error = pending.exception()
        self._trouble = None
        if error is not None:
            self._trouble = f"{_reason(error)} in {self.path}"
            self._on_trouble(self._trouble)

    def _write(self, state: Any, step: int, loss: float | None) -> None:
        folder = self._folder(step)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            for left in self.path.glob("*tmp*"):  # by a process that was killed
                _remove(left)
            _remove(self._manifest_path(step))  # from here to the end this step does not exist
            _remove(folder)
            context = _orbax().Context()
            context.array.saving.use_compression = False  # weights do not shrink, and training wants the cores
            with context:
                _orbax().save(folder, state)
            content = {
                "step": step,
                "loss": None if loss is None or not math.isfinite(loss) else loss,
                "about": self._about,
                "values": digest(state),
                "leaves": _leaves(state),
                "files": {name: files.sha256(folder / name) for name in _files(folder)},
            }
            _write_manifest(self._manifest_path(step), content)
        except BaseException:
            for left in (folder, *self.path.glob("*tmp*")):
                _remove(left)
            raise
        self._prune(step)

    def _prune(self, newest: int) -> None:
        steps, losses = [], {}
        for step in sorted(int(p.stem) for p in self.path.glob("*.json") if _is_step(p.stem)):
            try:
                loss = self._manifest(step).get("loss")
            except files.DamagedError:
                continue
            if step <= newest:  # later ones are of a future that was given up
                steps.append(step)
                losses |= {} if loss is None else {step: loss}
        kept = {*steps[-self.policy.keep :], *([min(losses, key=losses.get)] if losses else [])}
        if self.policy.keep_every is not None:
            kept |= {step for step in steps if step % self.policy.keep_every == 0}
        for path in [*self.path.glob("*.json"), *self.path.iterdir()]:  # manifests first
            if _is_step(path.name.removesuffix(".json")) and int(path.name.removesuffix(".json")) not in kept:
                _remove(path)

    def _pass_over(self, trouble: str) -> None:
        self.damaged.append(trouble)
        if self.policy.strict:
            raise files.DamagedError(
                f"Expected a whole checkpoint, as --restore strict asks for, got a damaged one: {trouble}."
            )

    def _none_whole(self) -> None:
        if self.damaged:
            raise files.DamagedError(
                f"Expected a whole checkpoint in {self.path}, got damaged ones only: {'; '.join(self.damaged)}. "
                "The command that trained the run rebuilds it."
            )

    def _damage(self, step: int) -> str | None:
        """Returns what is wrong with a step, None where it is whole."""
        try:
            content = self._manifest(step)
        except files.DamagedError as error:
            return str(error)
        folder, expected = self._folder(step), content["files"]
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

    def _check_about(self, content: dict, step: int) -> None:
        saved = content.get("about")
        if self._about is None or saved is None:
            return
        # flows are stacked, and features joined, in the order of the modalities
        order = configs.reordered(saved.get("specs"), self._about.get("specs"), "order of specs")
        if differing := configs.differences(saved, self._about, common=True) | order:
            raise ValueError(
                f"Expected the checkpoint {self._folder(step)} to be of this training, got {configs.told(differing)}. Another training takes another folder."
            )

    def _folder(self, step: int) -> pathlib.Path:
        return self.path / str(step)

    def _manifest_path(self, step: int) -> pathlib.Path:
        return self.path / f"{step}.json"

    def _manifest(self, step: int) -> dict:
        path = self._manifest_path(step)
        value = files.read_json(path)
        if isinstance(value, dict) and set(value) == {"leaves", "files"}:  # as they were before they had a sum of their own
            content = value
        elif (
            isinstance(value, dict)
            and set(value) == {"sha256", "content"}
            and value["sha256"] == files.json_sum(value["content"])
        ):
            content = value["content"]
        else:
            raise files.DamagedError(f"{path} has changed since it was written")
        if not (_all_of(content.get("leaves"), list) and _all_of(content.get("files"), str)):
            raise files.DamagedError(f"{path} has changed since it was written")
        if content.get("step", step) != step:
            raise files.DamagedError(f"{path} is that of step {content['step']}")
        return content


def _orbax() -> Any:
    """Returns Orbax; importing it takes a seventh of all imports' time, and who draws from weights at hand needs none of it."""
    from orbax.checkpoint import v1

    return v1


def write_alone() -> None:
    """Lets Orbax act as in a program of one process, for the first of several writes and reads alone.

    It would otherwise wait for all processes in collectives of its own, which must not mix with a step's.
    """
    from orbax.checkpoint._src.multihost import multihost as inner
    from orbax.checkpoint.experimental.v1._src.synchronization import multihost as outer

    for module in (inner, outer):
        module.process_count = lambda: 1
        module.should_skip_process_sync = lambda processes=None: True


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


_executor: concurrent.futures.ThreadPoolExecutor | None = None


def _writer() -> concurrent.futures.ThreadPoolExecutor:
    """Returns the one thread that writes; the interpreter waits for it at its end."""
    global _executor
    if _executor is None:
        _executor = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
    return _executor


def _forget_writer() -> None:
    global _executor
    _executor = None


os.register_at_fork(after_in_child=_forget_writer)  # a child has no thread of its parent's


def _write_manifest(path: pathlib.Path, content: dict) -> None:
    files.write_json(path, {"sha256": files.json_sum(json.loads(json.dumps(content))), "content": content})


def _reason(error: BaseException) -> str:
    """Returns an error's first words: Orbax's go on for pages."""
    text = str(error).strip().split("\n")[0]
    for known in ("No space left on device", "Disk quota exceeded", "Read-only file system", "Permission denied"):
        if known in text:
            return known
    return f"{type(error).__name__}: {text[:200]}"


def _all_of(value: Any, kind: type) -> bool:
    return isinstance(value, dict) and all(isinstance(entry, kind) for entry in value.values())


def _is_step(name: str) -> bool:
    return name.isascii() and name.isdigit() and (name == "0" or name[0] != "0") and len(name) < 16


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
    """Returns everything below a folder that is no folder; links are not followed."""
    found = []
    for root, folders, names in os.walk(folder, followlinks=False):
        links = [name for name in folders if (pathlib.Path(root) / name).is_symlink()]
        found += [str((pathlib.Path(root) / name).relative_to(folder)) for name in (*names, *links)]
    return sorted(found)


def _remove(path: pathlib.Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
