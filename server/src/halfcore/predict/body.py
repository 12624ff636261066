"""Reads request bodies and limits their size and time; granian and Litestar set no time limit."""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from math import inf
from time import monotonic
from typing import Protocol

from halfcore.predict.budget import SMALL_BYTES, Budget, Hold
from halfcore.problem import Problem

SLOW_S = 0.025
"""Seconds after which a body that is still arriving may be given up, if memory is short: clients
that send byte by byte can take 900 MB/s (`Collected` says why)."""
WATCHED_S = 0.005
"""Seconds between two readings of the memory while bodies arrive slowly and it may soon be
scarce."""
SCARCE_SHARE = 0.16
"""Share of the memory limit below which bodies are read in pieces, and slow ones that are not are
given up."""
GIVE_UP_SHARE = 0.08
"""Share of the memory limit below which every body that arrives slowly is given up."""
IN_PIECES_S = 10.0
"""Seconds for which bodies are read in pieces once memory was scarce: that costs more CPU time."""
CLIENT_LEFT = "client_left"
"""The outcome of a request whose client left before its answer."""
OVERLOADED = "overloaded"
"""The outcome of a request that found no place."""


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
        budget_bytes: most bytes of large bodies, rows and answers at a time; 0: no limit.
    """

    def __init__(self, *, max_bytes: int, timeout_s: float, budget_bytes: int = 0) -> None:
        self.max_bytes = max_bytes
        self.timeout_s = timeout_s
        self.small_bytes = min(max_bytes, SMALL_BYTES)
        """Largest body that needs no budget."""
        self.whole_bytes = self.small_bytes
        """Largest body that is read in one step; 0 while slow clients make memory scarce."""
        self.budget = Budget(budget_bytes or sys.maxsize)
        self.reading: dict[Reading, float] = {}
        """The bodies that are arriving, each with its start time, oldest first."""
        self.memory_left: Callable[[], float] = lambda: 1.0
        """Share of the memory limit that is left; see `memory_guard`."""
        self._late: dict[Reading, Problem] = {}
        """The bodies that were cancelled, each with the answer."""
        self._in_pieces: set[Reading] = set()
        """Those of `reading` that take no more memory than they have bytes."""
        self._whole_from = 0.0
        """When bodies may be read in one step again."""
        self._due = inf
        """When the next sweep is due."""
        self.given_up = 0
        """Bodies that were given up because memory was short."""
        self._sweeping = False
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, reading: Reading, loop: asyncio.AbstractEventLoop) -> None:
        """Watch a body: it is cancelled if it takes too long."""
        self.reading[reading] = monotonic()
        if not self._sweeping:
            self._sweeping = True
            loop.call_soon_threadsafe(self._sweep, loop)

    def end(self, reading: Reading) -> Problem | None:
        """The body has arrived, or never will. Returns the answer if it was cancelled: 408, or 503
        if memory was short; both close the connection."""
        del self.reading[reading]
        return self._late.pop(reading, None) if self._late else None

    async def in_time(self, body: Awaitable[bytes], *, in_pieces: bool = True) -> bytes:
        """Wait for the body.

        Args:
            body: waits for it.
            in_pieces: it is collected piece by piece.

        Raises:
            Problem: 408 or 503, which close the connection; 413 or 400 from reading it.
        """
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  for the type checker: a coroutine runs in a task
        if in_pieces:
            self._in_pieces.add(task)
        self.begin(task, asyncio.get_running_loop())
        try:
            return await body
        except asyncio.CancelledError:
            if task not in self._late:
                raise
            task.uncancel()
            raise self._late[task] from None
        finally:
            self._in_pieces.discard(task)
            self.end(task)

    def too_slow(self) -> Problem:
        """The 408 for a body that took too long; it closes the connection."""
        message = f"the body did not arrive within {self.timeout_s:g} s"
        return Problem(408, "body_too_slow", message, headers={"connection": "close"})

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        """Cancel the bodies that are late; run again while others are arriving."""
        now = monotonic()
        # A copy, because the other thread adds to it: made in one step. To list the items makes an
        # object for each, which may start the garbage collector, which may run other threads.
        arriving = list(self.reading.copy().items())
        # A loop that is late has not seen yet what has arrived meanwhile.
        slow_s = SLOW_S + 2 * max(0.0, now - self._due)
        slow = bool(arriving) and arriving[0][1] < now - slow_s
        left = self.memory_left() if slow else 1.0
        self._adapt(now, scarce=left < SCARCE_SHARE)
        for reading, since in arriving:
            if since > now - min(slow_s, self.timeout_s):
                break
            if reading in self._late:
                continue
            if since <= now - self.timeout_s:
                self._cancel(reading, self.too_slow())
            elif left < GIVE_UP_SHARE or (left < SCARCE_SHARE and reading not in self._in_pieces):
                self.given_up += 1
                self._cancel(reading, short_of_memory())
        if self._timer is not None:
            self._timer.cancel()
        # Set before `reading` is checked: a body that begins in between starts a new sweep, which
        # replaces this one.
        self._sweeping, self._due = False, inf
        if self.reading:
            self._sweeping = True
            often = left < 2 * SCARCE_SHARE
            period_s = min(WATCHED_S if often else SLOW_S, self.timeout_s / 4)
            self._due = now + period_s
            self._timer = loop.call_later(period_s, self._sweep, loop)

    def _cancel(self, reading: Reading, answer: Problem) -> None:
        self._late[reading] = answer
        reading.cancel()

    def _adapt(self, now: float, *, scarce: bool) -> None:
        """Read bodies in pieces for a while if memory is scarce."""
        if scarce:
            self.whole_bytes, self._whole_from = 0, now + IN_PIECES_S
        elif not self.whole_bytes and now >= self._whole_from:
            self.whole_bytes = self.small_bytes


class Collected:
    """A body that is collected chunk by chunk, within a size and a budget.

    One buffer, not a list of the chunks: a chunk of one byte would take 50. Nor is a large body
    read in one step: then granian keeps 8 KiB for each packet that arrived, however short.

    Args:
        max_bytes: largest body.
        hold: what is reserved for it.
    """

    def __init__(self, max_bytes: int, hold: Hold) -> None:
        self._max_bytes = max_bytes
        self._hold = hold
        self._buffer = bytearray()

    def add(self, chunk: bytes) -> None:
        """Take the next chunk.

        Raises:
            Problem: 413 beyond the size, 503 beyond the budget.
        """
        size = len(self._buffer) + len(chunk)
        if size > self._max_bytes:
            raise too_large(self._max_bytes)
        self._hold.cover(size)
        self._buffer += chunk

    def body(self) -> bytes:
        """All chunks; the buffer is freed."""
        body = bytes(self._buffer)
        self._buffer.clear()
        return body


def too_large(max_bytes: int) -> Problem:
    """The 413 for a body; it closes the connection."""
    return Problem(
        413,
        "body_too_large",
        f"the body is larger than {max_bytes} bytes",
        headers={"connection": "close"},
    )


def short_of_memory() -> Problem:
    """The 503 for any request while the memory limit is near; it closes the connection."""
    return Problem(
        503,
        "overloaded",
        "the server is short of memory; try again",
        retry_after_s=1,
        headers={"connection": "close"},
    )


def overloaded(why: str) -> Problem:
    """The 503 for a request that finds no place."""
    return Problem(503, OVERLOADED, f"{why}; try again", retry_after_s=1)


def client_left() -> Problem:
    """For the log and the metrics: the client is gone and does not read this answer; unless it sent
    trailers, which granian reports in the same way."""
    message = (
        "the client left before its body was complete; or the body has trailers, which a Trailer "
        "header must announce and a CSV body must not have"
    )
    return Problem(400, CLIENT_LEFT, message)
