"""Reads request bodies within a size and a time, which neither granian nor Litestar bounds in
time."""

import asyncio
from collections.abc import Awaitable
from time import monotonic
from typing import Protocol

from halfcore.problem import Problem


class Reading(Protocol):
    """A body on its way, which can be given up: a task that waits for it, or granian's future of
    it. One hash per object."""

    def cancel(self) -> object:
        """Wait no more."""


class BodyReader:
    """Watches bodies on their way; a client that sends too much gets 413, one that sends too slowly
    408.

    All share one timer, which exists only while a body is outstanding: a timer each would cost
    every request more than the read itself. `begin` may be called by granian's hand-over thread,
    everything else by the event loop.

    Args:
        max_bytes: largest body.
        timeout_s: seconds from the request's head to its last byte; enforced to within a quarter
            more.
    """

    def __init__(self, *, max_bytes: int, timeout_s: float) -> None:
        self.max_bytes = max_bytes
        self._timeout_s = timeout_s
        self.reading: dict[Reading, float] = {}
        """What is on its way since when, the oldest first."""
        self._late: set[Reading] = set()
        self._sweeping = False
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, reading: Reading, loop: asyncio.AbstractEventLoop) -> None:
        """Watch a body: it is cancelled when it is too late."""
        self.reading[reading] = monotonic()
        if not self._sweeping:
            self._sweeping = True
            loop.call_soon_threadsafe(self._sweep, loop)

    def end(self, reading: Reading) -> bool:
        """The body came, or will not; returns whether it was cancelled here."""
        del self.reading[reading]
        if not self._late or reading not in self._late:
            return False
        self._late.remove(reading)
        return True

    async def in_time(self, body: Awaitable[bytes]) -> bytes:
        """The body, if it arrives in time.

        Raises:
            Problem: 408, which closes the connection; 413 or 400 from the reading itself.
        """
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  for the type checker: a coroutine runs in a task
        self.begin(task, asyncio.get_running_loop())
        try:
            return await body
        except asyncio.CancelledError:
            if task not in self._late:
                raise
            task.uncancel()
            raise self.too_slow() from None
        finally:
            self.end(task)

    def too_slow(self) -> Problem:
        """The 408 for a body, which closes the connection."""
        message = f"the body did not arrive within {self._timeout_s:g} s"
        return Problem(408, "body_too_slow", message, headers={"connection": "close"})

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        """Cancel what is late, and look again as long as there are others."""
        oldest = monotonic() - self._timeout_s
        for reading, since in list(self.reading.items()):  # a copy: the other thread adds to it
            if since > oldest:
                break
            if reading not in self._late:
                self._late.add(reading)
                reading.cancel()
        if self._timer is not None:
            self._timer.cancel()
        # Before the look: who begins in between starts a sweep of its own, which takes this one's
        # place
        self._sweeping = False
        if self.reading:
            self._sweeping = True
            self._timer = loop.call_later(self._timeout_s / 4, self._sweep, loop)


def too_large(max_bytes: int) -> Problem:
    """The 413 for a body, which closes the connection."""
    return Problem(
        413,
        "body_too_large",
        f"the body is larger than {max_bytes} bytes",
        headers={"connection": "close"},
    )


def client_left() -> Problem:
    """For the log and the metrics: nobody will read this answer."""
    return Problem(400, "client_left", "the client left before its body was complete")
