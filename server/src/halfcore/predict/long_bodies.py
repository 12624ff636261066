"""Decodes long bodies in slices: one slice in each turn of the event loop.

A body of some megabytes takes up to a second to decode if it was made to be expensive. The decoder
pauses every few milliseconds and continues in the loop's next turn, after the requests that arrived
in between. Bodies are decoded one after another, so only one is held in parts at a time. A body
that has waited too long is refused before its decoding begins.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Generator
from time import perf_counter
from typing import Protocol

from halfcore.pipeline.decode import Rows
from halfcore.problem import Problem

Steps = Generator[None, None, Rows]
"""Decodes one body, pausing every few milliseconds; raises `Problem` if the body is wrong."""


class Waiter(Protocol):
    """The request that a body belongs to."""

    def done(self) -> bool:
        """Whether the request has ended, so that its rows are not needed."""

    def decoded(self, rows: Rows, seconds: float, /) -> None:
        """Take the rows; decoding took `seconds`. What it raises goes to `set_exception`."""

    def set_exception(self, error: Exception, /) -> None:
        """Take the reason why there are no rows; must not raise."""


class LongBodies:
    """The long bodies of one worker, waiting or being decoded; used on the event loop only.

    Args:
        timeout_s: longest wait for a body's first slice, seconds; beyond it the answer is 503.
        clock: returns seconds.
    """

    def __init__(self, *, timeout_s: float, clock: Callable[[], float] = perf_counter) -> None:
        self._timeout_s = timeout_s
        self._clock = clock
        self._waiting: deque[_Body] = deque()
        self._scheduled = False

    def add(self, steps: Steps, waiter: Waiter) -> None:
        """Decode a body after those before it; the waiter is called in a later turn of the
        loop."""
        self._waiting.append(_Body(steps, waiter, self._clock()))
        self._schedule()

    def _schedule(self) -> None:
        if self._waiting and not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        """Decode one slice of the first body."""
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
    """One body, and for how many seconds it has been decoded."""

    __slots__ = ("added_at", "seconds", "steps", "waiter")

    def __init__(self, steps: Steps, waiter: Waiter, added_at: float) -> None:
        self.steps = steps
        self.waiter = waiter
        self.added_at = added_at
        self.seconds = 0.0
