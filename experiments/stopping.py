"""How a training ends early: by a signal, with its state saved, or by a watchdog, where it hangs.

The first SIGTERM or SIGINT is answered where the training asks next, about a second later. While nothing would be lost, as a stage is
being compiled, it ends the process at once. A second signal always does. Two signals within two seconds count as one,
because launchers often send a signal twice.
"""

import contextlib
import faulthandler
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator

import jax

from jnf_jax.training import processes

_SAME_SIGNAL = 2.0  # seconds within which two count as one
INTERRUPTED = 130
"""The exit code after SIGTERM or SIGINT, with the state saved."""


class Stop:
    """Whether a training shall stop.

    Attributes:
      received: the signals that came.
      continuing: how the training goes on, in words.
    """

    def __init__(self, *, watchdog: float | None = None, continuing: str = "the same command continues"):
        """Does nothing yet; `listening` does.

        Args:
          continuing: what is told of how the training goes on.
          watchdog: seconds between two questions after which the process is ended with the traceback of every thread; None: never.

        Raises:
          ValueError: if they are not positive.
        """
        if watchdog is not None and not watchdog > 0:
            raise ValueError(f"Expected a watchdog of more than 0 seconds, got {watchdog}.")
        self.received: list[int] = []
        self.continuing = continuing
        self._watchdog = watchdog
        self._at_rest = jax.process_count() == 1  # as in `at_rest`

    def asked(self) -> bool:
        """Returns whether a signal came, to any of the processes: all of them ask equally often, and stop together."""
        self._at_rest = False
        self._alive()
        return processes.any_process(bool(self.received))

    def at_rest(self) -> None:
        """Says that nothing would be lost, until the next question."""
        self._at_rest = jax.process_count() == 1  # one of several waits for the others
        if self._at_rest and self.received:
            self._leave(self.received[0])
        self._alive()

    def done(self) -> None:
        """Says that the training is over; the watchdog watches no more."""
        faulthandler.cancel_dump_traceback_later()

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Catches SIGTERM and SIGINT, and lets the watchdog watch."""
        numbers = (signal.SIGTERM, signal.SIGINT)
        before = {number: signal.signal(number, lambda *_: None) for number in numbers}
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        woken = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
        # a thread, for Python's own handlers wait until a compilation is done
        threading.Thread(target=self._listen, args=(ours,), daemon=True, name="signals").start()
        self._alive()
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()
            signal.set_wakeup_fd(woken)
            for number, handler in before.items():
                signal.signal(number, handler)
            theirs.close()

    def _listen(self, ours: socket.socket) -> None:
        first = 0.0
        with ours:
            while number := ours.recv(1):
                if number[0] not in (signal.SIGTERM, signal.SIGINT):
                    continue
                now = time.monotonic()
                if self._at_rest or (self.received and now - first > _SAME_SIGNAL):
                    self._leave(number[0])
                if not self.received:
                    first = now
                self.received.append(number[0])

    def _alive(self) -> None:
        if self._watchdog is not None:
            faulthandler.dump_traceback_later(self._watchdog, exit=True)

    def _leave(self, number: int) -> None:
        print(f"stopped by signal {number}; {self.continuing}", file=sys.stderr, flush=True)
        os._exit(INTERRUPTED)
