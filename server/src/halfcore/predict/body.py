"""Reads request bodies and limits their size and time; granian and Litestar set no time limit."""

import asyncio
from collections.abc import Awaitable
from time import monotonic
from typing import Protocol

from halfcore.problem import Problem

CLIENT_LEFT = "client_left"
"""The outcome of a request whose client left before its answer."""


class Reading(Protocol):
    """A body that is arriving and can be cancelled: a task that waits for it, or granian's future.
    Hashed by identity."""

    def cancel(self) -> object:
        """Stop waiting."""


class BodyReader:
    """Watches the bodies that are arriving. Too large a body is answered with 413, too slow a one
    with 408.

    All bodies share one timer, which runs only while a body is arriving: a timer per body would
    cost more than reading it. `begin` may be called by granian's scheduler thread, everything else
    by the event loop.

    Args:
        max_bytes: largest body, bytes.
        timeout_s: seconds from the request's head to the body's last byte; enforced within a
            quarter more.
    """

    def __init__(self, *, max_bytes: int, timeout_s: float) -> None:
        self.max_bytes = max_bytes
        self.timeout_s = timeout_s
        self.reading: dict[Reading, float] = {}
        """The bodies that are arriving, each with its start time, oldest first."""
        self._late: set[Reading] = set()
        self._sweeping = False
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, reading: Reading, loop: asyncio.AbstractEventLoop) -> None:
        """Watch a body: it is cancelled if it takes too long."""
        self.reading[reading] = monotonic()
        if not self._sweeping:
            self._sweeping = True
            loop.call_soon_threadsafe(self._sweep, loop)

    def end(self, reading: Reading) -> bool:
        """The body has arrived, or never will. Returns whether it was cancelled as too slow."""
        del self.reading[reading]
        if not self._late or reading not in self._late:
            return False
        self._late.remove(reading)
        return True

    async def in_time(self, body: Awaitable[bytes]) -> bytes:
        """Wait for the body.

        Raises:
            Problem: 408, which closes the connection; 413 or 400 from reading it.
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
        """The 408 for a body; it closes the connection."""
        message = f"the body did not arrive within {self.timeout_s:g} s"
        return Problem(408, "body_too_slow", message, headers={"connection": "close"})

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        """Cancel the bodies that are late; run again while others are arriving."""
        oldest = monotonic() - self.timeout_s
        for reading, since in list(self.reading.items()):  # a copy: the other thread adds to it
            if since > oldest:
                break
            if reading not in self._late:
                self._late.add(reading)
                reading.cancel()
        if self._timer is not None:
            self._timer.cancel()
        # Set before `reading` is checked: a body that begins in between starts a new sweep, which
        # replaces this one.
        self._sweeping = False
        if self.reading:
            self._sweeping = True
            self._timer = loop.call_later(self.timeout_s / 4, self._sweep, loop)


def too_large(max_bytes: int) -> Problem:
    """The 413 for a body; it closes the connection."""
    return Problem(
        413,
        "body_too_large",
        f"the body is larger than {max_bytes} bytes",
        headers={"connection": "close"},
    )


def client_left() -> Problem:
    """For the log and the metrics: the client is gone and does not read this answer; unless it sent
    trailers, which granian reports in the same way."""
    message = (
        "the client left before its body was complete; or the body has trailers, which a Trailer "
        "header must announce and a CSV body must not have"
    )
    return Problem(400, CLIENT_LEFT, message)
