"""Several processes as one program: all compute, the first one alone reads and writes files, and all learn what it found.

Every function here is called by all processes, in the same order. With one process they cost nothing.
"""

import itertools
import json
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax._src import distributed
from jax.experimental import multihost_utils

from jnf_jax.training import checkpoint, files, sharding

_MEETINGS = itertools.count()
_PATIENCE = 3_600_000  # milliseconds; a process that dies ends the wait within the heartbeat


def is_first() -> bool:
    """Returns whether this is the process that writes."""
    return jax.process_index() == 0


def meet() -> None:
    """Returns once all processes are here; an error where one of them has died.

    A collective on CPUs gives up after half a minute. This waits as long as a process compiles or reads.

    Raises:
      ValueError: if JAX has several processes that were never joined.
    """
    if jax.process_count() > 1:
        client = distributed.global_state.client  # jax has no public barrier that is not a collective
        if client is None:
            raise ValueError(
                f"Expected {jax.process_count()} processes joined by jax.distributed.initialize (`jnf-jax train --distributed`), got none."
            )
        client.wait_at_barrier(f"jnf_jax meeting {next(_MEETINGS)}", timeout_in_ms=_PATIENCE)


def any_process(asked: bool) -> bool:
    """Returns whether it is so in any process."""
    if jax.process_count() == 1:
        return asked
    meet()
    return bool(multihost_utils.process_allgather(np.asarray(asked)).any())


def from_first(function: Callable[[], Any]) -> Any:
    """Returns what `function()`, called in the first process alone, returns there, as JSON values; all raise what it raises.

    Raises:
      ValueError: what the function raises, of the kinds that `files` and `checkpoint` have; an error of another type becomes a ValueError too.
    """
    if jax.process_count() == 1:
        return function()
    answer = b""
    if is_first():
        checkpoint.write_alone()  # what it reads and writes by Orbax waits for nobody
        try:
            content = {"value": function()}
        except Exception as error:
            content = {"error": type(error).__name__, "message": str(error)}
        answer = json.dumps(content, default=str).encode()
    meet()
    length = int(multihost_utils.broadcast_one_to_all(np.int32(len(answer))))
    padded = np.frombuffer(answer.ljust(length, b" ")[:length], np.uint8)
    content = json.loads(bytes(np.asarray(multihost_utils.broadcast_one_to_all(padded))).decode())
    if "error" in content:
        kinds = {kind.__name__: kind for kind in (files.DamagedError, checkpoint.SaveError)}
        raise kinds.get(content["error"], ValueError)(content["message"])
    return content["value"]


def shared(directory: checkpoint.Directory) -> Any:
    """Returns a directory that all processes use as one: the first reads and writes, and the others are sent what it read."""
    if jax.process_count() == 1:
        return directory
    checkpoint.write_alone()
    return _Shared(directory)


class _Shared:
    """A `checkpoint.Directory` whose methods are called in the first process; the values go to all."""

    def __init__(self, directory: checkpoint.Directory):
        self._directory = directory

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._directory, name)
        if not callable(value):
            return value
        return lambda *args, **options: from_first(lambda: value(*args, **options))

    def save(self, state: Any, **options: Any) -> None:
        """Gathers the state from all processes and writes it in the first."""
        state = sharding.on_host(state)
        from_first(lambda: self._directory.save(state, **options))

    def latest(self, like: Any) -> Any | None:
        """Returns the newest whole state in every process, None where there is none."""
        like, found = sharding.on_host(like), []

        def read() -> bool:
            found.append(self._directory.latest(like))
            return found[0] is not None

        if not from_first(read):
            return None
        return multihost_utils.broadcast_one_to_all(found[0] if is_first() else like)
