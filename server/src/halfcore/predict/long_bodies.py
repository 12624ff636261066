"""Decodes long bodies between other work: one slice in each turn of the event loop.

A body of some megabytes takes up to a second to decode if it was made to be expensive. The decoder
pauses every few milliseconds, and here it is continued in the loop's next turn, after the requests
that arrived meanwhile. Bodies are decoded one after another, so that only one of them is held in
parts, and one that has waited too long is refused before its decoding begins.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Generator
from time import perf_counter
from typing import Protocol

from halfcore.pipeline.decode import Rows
from halfcore.problem import Problem

Steps = Generator[None, None, Rows]
"""The work on one body, a few milliseconds between two pauses; raises `Problem` if it is wrong."""


class Waiter(Protocol):
    """The request that a body belongs to."""

    def done(self) -> bool:
        """Whether nobody waits for the rows any more."""

    def decoded(self, rows: Rows, seconds: float, /) -> None:
        """Take the rows, whose decoding took so long; what it raises goes to `set_exception`."""

    def set_exception(self, error: Exception, /) -> None:
        """Take the reason why there are no rows; must not raise."""


class LongBodies:
    """The long bodies of one worker that are being decoded or wait for it; used on the event loop.

    Args:
        timeout_s: a body that has waited longer for its first slice is refused with 503.
        clock: seconds.
    """

    def __init__(self, *, timeout_s: float, clock: Callable[[], float] = perf_counter) -> None:
        self._timeout_s = timeout_s
        self._clock = clock
        self._waiting: deque[_Body] = deque()
        self._scheduled = False

    def add(self, steps: Steps, waiter: Waiter) -> None:
        """Decode a body when those before it are decoded; the waiter is called from a later
        turn."""
        self._waiting.append(_Body(steps, waiter, self._clock()))
        self._schedule()

    def _schedule(self) -> None:
        if self._waiting and not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        """Do one slice of the first body's work."""
        self._scheduled = False
        body = self._waiting[0]
        start = self._clock()
        try:
            if not body.waiter.done():
                self._check_wait(body, start)
                next(body.steps)
                body.seconds += self._clock() - start
                self._schedule()
                return
        except StopIteration as end:
            self._finish(body, end.value, body.seconds + self._clock() - start)
        except Exception as error:  # noqa: BLE001  the request is answered with it
            body.waiter.set_exception(error)
        self._waiting.popleft()
        self._schedule()

    def _check_wait(self, body: "_Body", now: float) -> None:
        if not body.seconds and now - body.added_at > self._timeout_s:
            message = (
                f"the request waited longer than {self._timeout_s:g} s to be decoded; try again"
            )
            raise Problem(503, "queue_timeout", message, retry_after_s=1)

    @staticmethod
    def _finish(body: "_Body", rows: Rows, seconds: float) -> None:
        try:
            body.waiter.decoded(rows, seconds)
        except Exception as error:  # noqa: BLE001  the request is answered with it
            body.waiter.set_exception(error)


class _Body:
    """One body, and how long it has been worked on."""

    __slots__ = ("added_at", "seconds", "steps", "waiter")

    def __init__(self, steps: Steps, waiter: Waiter, added_at: float) -> None:
        self.steps = steps
        self.waiter = waiter
        self.added_at = added_at
        self.seconds = 0.0
