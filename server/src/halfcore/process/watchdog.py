"""Receives the signals of a server that is one process, on a thread of its own, which also owns the
time limit of the end: the server ends in time even if its event loop stands still, in a run of a
model for example.

The interpreter writes a signal's number into a pipe as soon as it arrives, whatever its threads do;
a handler in the event loop would wait until the loop turns.
"""

import asyncio
import os
import select
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from math import inf
from time import monotonic

from halfcore.log import logger
from halfcore.process.draining import Drain, Serving, Timing

CUT_OFF = (
    "ended before every accepted request was answered: drain_timeout_s is over; raise "
    "HALFCORE_DRAIN_TIMEOUT_S if that is too short"
)
_MOST = 64
"""Signals that are read at once."""


class Watchdog:
    """Begins the end at the first signal, and hurries it at the next one.

    Args:
        drain: the end.
        serving: is not ready from the first signal on, even if the loop stands still.
        timing: how long the end may take.
        give_up: ends the process.
    """

    def __init__(
        self,
        drain: Drain,
        serving: Serving,
        timing: Timing,
        give_up: Callable[[], None] | None = None,
    ) -> None:
        self._drain = drain
        self._serving = serving
        self._timing = timing
        self._give_up = give_up or cut_off
        self._loop = asyncio.get_running_loop()
        self._deadline = inf
        self._signals, self._writes = os.pipe()
        os.set_blocking(self._writes, False)

    def start(self, ending: frozenset[signal.Signals]) -> None:
        """Watch for these signals until the process ends. Called on the main thread, in the running
        loop: uvloop sets a pipe of its own when it starts to run."""
        threading.Thread(target=self._watch, args=(ending,), name="watchdog", daemon=True).start()
        signal.set_wakeup_fd(self._writes, warn_on_full_buffer=False)
        for number in ending:
            signal.signal(number, lambda *_: None)

    def _watch(self, ending: frozenset[signal.Signals]) -> None:
        while True:
            left_s = None if self._deadline == inf else max(0.0, self._deadline - monotonic())
            if not select.select([self._signals], [], [], left_s)[0]:
                self._give_up()
                return
            for number in os.read(self._signals, _MOST):
                if number in ending:
                    self._on_signal()

    def _on_signal(self) -> None:
        first = self._deadline == inf
        limit_s = self._timing.drain_timeout_s + (self._timing.predrain_s if first else 0.0)
        self._deadline = min(self._deadline, monotonic() + limit_s)
        self._serving.begin_draining()
        with suppress(RuntimeError):  # the loop is closed: this is the end
            self._loop.call_soon_threadsafe(self._drain.begin if first else self._drain.hurry)


def cut_off() -> None:
    """End the process although requests are not answered."""
    logger.error(CUT_OFF)
    os._exit(1)
