"""Checkpoints by Orbax that are either whole or not there.

A state is copied to the host, and a thread writes it while training goes on. Orbax commits a step by renaming its folder; afterwards a manifest
is written beside it (`manifests`). A step without a manifest was never finished, and one that differs from its manifest was damaged: neither is
restored. The newest whole step is, and training from there gives the same result, only later.
"""

import concurrent.futures
import dataclasses
import json
import os
import pathlib
import shutil
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from jnf_jax import configs
from jnf_jax.training import files, manifests


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
                manifests.check_leaves(content["leaves"], manifests.leaves(like), f"the checkpoint {self._folder(step)}")
                state = _orbax().load(self._folder(step), like)
                if content.get("values") in (None, manifests.digest(state)):
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
            manifests.check_leaves(content["leaves"], manifests.leaves(like), f"the checkpoint {self._folder(step)}")

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
            manifests.write(manifests.beside(self._folder(step)), content | {"about": content["about"] | dict(about)})

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
            _remove(manifests.beside(folder))  # from here to the end this step does not exist
            _remove(folder)
            context = _orbax().Context()
            context.array.saving.use_compression = False  # weights do not shrink, and training wants the cores
            with context:
                _orbax().save(folder, state)
            manifests.write(
                manifests.beside(folder), manifests.describe(folder, state, step=step, loss=loss, about=self._about)
            )
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

    def _manifest(self, step: int) -> dict:
        return manifests.read(manifests.beside(self._folder(step)), step)

    def _damage(self, step: int) -> str | None:
        return manifests.damage(self._folder(step), step)


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


def _reason(error: BaseException) -> str:
    """Returns an error's first words: Orbax's go on for pages."""
    text = str(error).strip().split("\n")[0]
    for known in ("No space left on device", "Disk quota exceeded", "Read-only file system", "Permission denied"):
        if known in text:
            return known
    return f"{type(error).__name__}: {text[:200]}"


def _is_step(name: str) -> bool:
    return name.isascii() and name.isdigit() and (name == "0" or name[0] != "0") and len(name) < 16


def _remove(path: pathlib.Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
