"""The order of an end: report not ready, wait until load balancers notice, keep new connections
out, answer what has arrived, close the listener.

From the first step on each answer closes its connection. So when the listener and the idle
connections are closed, no request of a client that had one to send is on its way. A server without
a load balancer does not need the wait of the second step: its default is 0 s.
"""

import asyncio
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Protocol

from halfcore.log import logger
from halfcore.process import listener

QUIET_S = 0.1
"""Seconds without a request in progress after which none is on its way: a client that had its
answer has sent its next request by then."""
LONGEST_SETTLING_S = 1.0
"""Seconds until the listener is closed even if requests are in progress: they are answered after
that, too, and a new client is refused rather than kept waiting."""
_LOOK_EVERY_S = 0.01


class Serving(Protocol):
    """What answers requests."""

    def begin_draining(self) -> None:
        """Report not ready, and close each connection with its answer; may be called on any
        thread."""

    def in_progress(self) -> int:
        """Requests that are not answered yet."""


@dataclass(frozen=True)
class Timing:
    """How long an end may take, seconds."""

    predrain_s: float
    """From the first signal until new connections are kept out."""
    drain_timeout_s: float
    """From then until what is not answered is cut off."""

    @property
    def settling_s(self) -> float:
        """Longest time between new connections kept out and the listener closed."""
        return min(LONGEST_SETTLING_S, self.drain_timeout_s / 4)


class Drain:
    """The end of one worker, in its event loop.

    Args:
        serving: answers requests.
        stop: closes the listener and idle connections; may be called again.
        port: of the listener.
        timing: how long each step may take.
    """

    def __init__(
        self, serving: Serving, stop: Callable[[], None], *, port: int, timing: Timing
    ) -> None:
        self._serving = serving
        self._stop = stop
        self._port = port
        self._timing = timing
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Begin the end; does nothing if it has begun. Called on the event loop."""
        if self._task is None:
            self._serving.begin_draining()
            self._task = asyncio.ensure_future(self._run())

    def hurry(self) -> None:
        """Close the listener now, if the end has begun. Called on the event loop."""
        if self._task is not None:
            self._task.cancel()
            self._stop()

    async def _run(self) -> None:
        if predrain_s := self._timing.predrain_s:
            logger.info("not ready: the listener closes in %g s", predrain_s)
            await asyncio.sleep(predrain_s)
        # A listener's duplicate would keep it open: all are closed before it is stopped.
        with ExitStack() as stack:
            found = [stack.enter_context(one) for one in listener.listeners(self._port)]
            with suppress(OSError):  # without the filter some connections may be reset at the end
                for one in found:
                    listener.keep_out(one)
            await settle(
                lambda: self._serving.in_progress() + sum(map(listener.waiting, found)),
                longest_s=self._timing.settling_s,
            )
        self._stop()


async def settle(busy: Callable[[], int], *, longest_s: float) -> None:
    """Wait until nothing was in progress for `QUIET_S`, or for `longest_s`."""
    clock = asyncio.get_running_loop().time
    end = clock() + longest_s
    quiet_since = clock()
    while (now := clock()) < end and now - quiet_since < QUIET_S:
        await asyncio.sleep(_LOOK_EVERY_S)
        if busy():
            quiet_since = clock()
