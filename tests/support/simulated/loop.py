"""An event loop with virtual time that runs what is ready in an order drawn from a seed.

`asyncio` runs ready callbacks in the order in which they were scheduled, so a test sees one of the
many orders that a busy server sees. Here each iteration runs one callback, drawn at random. Time
passes only when nothing is ready, and jumps to the next timer. Threads do not exist: the work of an
executor is run at once as one step, after a random wait, and reported after another one.
"""

import asyncio
import heapq
import random
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any
from unittest import mock

MOST_STEPS = 200_000
"""Callbacks of one schedule; far beyond what one needs, so more means an endless loop."""
WAITS_S = (0.0, 0.0, 0.0, 0.001, 0.05, 0.6)
"""Drawn for the wait and the report of a thread's work, seconds."""


class Stuck(Exception):
    """Nothing can happen any more, or no end is in sight: somebody waits for ever."""


class Wrong(Exception):
    """A promise was broken in this schedule."""


class _Threads:
    """What an executor of one thread has to do, in order."""

    def __init__(self) -> None:
        self.queue: deque[tuple[asyncio.Future[Any], Callable[..., Any], tuple[Any, ...]]] = deque()
        self.busy = False


class SeededLoop(asyncio.BaseEventLoop):
    """Draws the order of callbacks and the duration of threads' work from `dice`."""

    def __init__(self, dice: random.Random) -> None:
        super().__init__()
        self.dice = dice
        self.now = 0.0
        self.steps = 0
        self._executors: dict[int, _Threads] = {}

    def time(self) -> float:
        """Virtual seconds since the start."""
        return self.now

    def is_busy(self, executor: object) -> bool:
        """Whether an executor's thread has begun work that it has not reported."""
        return id(executor) in self._executors and self._executors[id(executor)].busy

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> Any:
        """Run a function later, as one step; one at a time per executor."""
        future: asyncio.Future[Any] = self.create_future()
        threads = self._executors.setdefault(id(executor), _Threads())
        threads.queue.append((future, func, args))
        self._begin(threads)
        return future

    def _begin(self, threads: _Threads) -> None:
        if threads.queue and not threads.busy:
            threads.busy = True
            self.call_later(self.dice.choice(WAITS_S), self._work, threads)

    def _work(self, threads: _Threads) -> None:
        future, func, args = threads.queue.popleft()
        if future.cancelled():  # as in `concurrent.futures`: what has not begun is not run
            self._report(threads, future, None, None)
            return
        result = failure = None
        try:
            result = func(*args)
        except Exception as error:  # noqa: BLE001  reported by the future
            failure = error
        self.call_later(self.dice.choice(WAITS_S), self._report, threads, future, result, failure)

    def _report(
        self, threads: _Threads, future: "asyncio.Future[Any]", result: Any, failure: Any
    ) -> None:
        threads.busy = False
        if not future.done():
            if failure is None:
                future.set_result(result)
            else:
                future.set_exception(failure)
        self._begin(threads)

    def _run_once(self) -> None:
        """Run one callback of those that are ready, or let time pass."""
        self.steps += 1
        if self.steps > MOST_STEPS:
            raise Stuck(f"no end after {MOST_STEPS} callbacks")
        ready: deque[Any] = self._ready  # type: ignore[attr-defined]
        timers: list[Any] = self._scheduled  # type: ignore[attr-defined]
        while timers and timers[0].cancelled():
            heapq.heappop(timers)._scheduled = False
        if not ready:
            if not timers:
                raise Stuck("nothing is ready, and no timer is set")
            self.now = max(self.now, timers[0].when())
        while timers and timers[0].when() <= self.now:
            timer = heapq.heappop(timers)
            timer._scheduled = False
            if not timer.cancelled():
                ready.append(timer)
        if ready:
            ready.rotate(-self.dice.randrange(len(ready)))
            handle = ready.popleft()
            if not handle.cancelled():
                handle._run()

    def _write_to_self(self) -> None:
        """There is no selector to wake."""

    def _process_events(self, event_list: Any) -> None:
        """There are no sockets."""


def simulate(seed: int, scenario: Callable[[SeededLoop], Coroutine[Any, Any, None]]) -> int:
    """Run a scenario on a loop of this seed; return the number of callbacks.

    Raises:
        Stuck, Wrong: or whatever the scenario raises; the seed replays it.
    """
    dice = random.Random(seed)  # noqa: S311  repeatable, not secret
    loop = SeededLoop(dice)
    failures: list[str] = []
    loop.set_exception_handler(lambda _loop, context: failures.append(str(context)))
    # The parts draw their own delays from the module's generator.
    with mock.patch.object(random, "uniform", dice.uniform):
        try:
            loop.run_until_complete(scenario(loop))
        finally:
            steps = loop.steps
            _end(loop)
    if failures:
        raise Wrong(failures[0])
    return steps


def _end(loop: SeededLoop) -> None:
    """Cancel what a failed scenario has left, and close the loop."""
    left = asyncio.all_tasks(loop)
    for task in left:
        task.cancel()
    loop.steps = 0
    with suppress(Stuck):
        if left:
            loop.run_until_complete(asyncio.wait(left))
    loop.close()
