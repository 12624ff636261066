"""Interrupt moderation for a server that is short of CPU time: requests gather for a moment before
an iteration of the event loop.

With many quiet connections and few requests each, waking threads costs more than answering:
granian's runtime thread, the thread that passes requests to Python and the event loop wake one
another for every request. Network cards have the same problem and the same solution. While
coalescing is on, the first request of a gathering makes the thread that passes requests to Python
sleep for `delay_s`, before it asks for the request's body; then all requests that arrived meanwhile
go to the loop together, and the next gathering begins when they have been answered.
docs/decisions/0012 has what that saves. A request waits for half a gathering on average and for one
at most, which is little compared with the waiting of a server whose quota is spent.

A few clients that wait for each answer would lose most of their throughput, so the delay is
controlled: it grows while more of the quota is used than aimed at, shrinks when less than half of
that is used, and is switched off immediately when it slows the clients down.
"""

import asyncio
import ctypes
import time
from collections.abc import Callable

WINDOW_S = 1.0
"""Seconds between two decisions."""
SCARCE = 0.8
"""Share of the quota above which requests gather for the whole delay immediately. Above it a rate
falls because CPU time is short, not because of the waiting."""
STEPS = 8
"""Steps in which the delay grows, one in each window; it shrinks by half of them."""
KEEP_RATE = 0.8
"""Share of the earlier request rate that must remain."""
ENOUGH_HZ = 8000.0
"""After an iteration with this many requests per second, 32 in 4 ms, no request waits: enough
arrive without a delay. The time is measured from the gathering before, because the requests that
pile up while the quota is spent are many, but arrived over a long time."""
MODELS_SHARE = 0.75
"""Share of the CPU time that goes to the models' runs above which no request waits: there is little
to save then, and the model could run instead."""
TURNS = 8
"""Iterations with the whole delay that make a trial, which shows whether gathering is clearly of no
use."""
FEW = 1.5
"""Requests of such an iteration, on average, below which gathering is of no use: those of one
client who waits for each answer never meet another."""
LOST_RATE = 0.3
"""Share of the earlier request rate below which gathering is of no use either: a few clients wait
for their answers. Well below one, because the rate over so short a time varies by chance."""
TRIAL_REST = 25
"""After such a trial no request waits for this many times its length. Not longer, because more
clients may connect."""
FIRST_REST_S, LONGEST_REST_S = 10.0, 300.0
"""Seconds without coalescing after it slowed the clients down; doubled each time."""


class Coalescer:
    """Decides when requests gather, and delays them.

    Args:
        quota: cores' worth of CPU time that this process may use.
        aim: share of the quota that may be used before any request waits.
        delay_s: seconds that requests gather at most.
        loop: the event loop that answers; runs the callbacks.
        clock: seconds.
        cpu_clock: seconds of CPU time that this process used.
        models_clock: seconds of the models' runs.
        pause: stops the calling thread for a number of seconds.
    """

    def __init__(
        self,
        *,
        quota: float,
        aim: float,
        delay_s: float,
        loop: asyncio.AbstractEventLoop,
        clock: Callable[[], float] = time.monotonic,
        cpu_clock: Callable[[], float] = time.process_time,
        models_clock: Callable[[], float] = float,
        pause: Callable[[float], None] | None = None,
    ) -> None:
        self._quota = quota
        self._aim = aim
        self._step_s = delay_s / STEPS
        self._steps, self._delay_s = 0, 0.0
        self._loop = loop
        self._clock = clock
        self._cpu_clock = cpu_clock
        self._models_clock = models_clock
        self._pause = pause or _pause_all_of_python()
        self.gathering = False
        """Whether requests wait for other requests."""
        self._in_turn = False
        self._arrived = self._last_turn = 0
        self._turns = self._gathered = 0
        self._turns_start = self._turns_cpu = 0.0
        # Each is written by one thread: granian's, except `_answered`. (The ordinary lane's
        # `arriving` may lose one of `_asked`: a gathering then ends one request early.)
        self._asked = self._answered = self._asked_before = self._answered_before = 0
        self._began = self._patience_ends = 0.0
        self._watching = False
        self._window_arrivals = 0
        self._window_start = self._window_cpu = self._window_models = 0.0
        self._rate_before, self._longer = 0.0, False
        self._rest_s, self._rested_at = FIRST_REST_S, 0.0

    def arriving(self) -> None:
        """A request's head has arrived, and its body was not asked for yet: the first request of a
        gathering waits here for the others.

        May be called on any thread; it holds the interpreter's lock. The next gathering begins when
        the loop has had every request of this one; if a body arrives slowly, other requests wait
        for it at most one more delay.
        """
        if not self.gathering:
            return
        if (
            self._asked - self._asked_before <= self._answered - self._answered_before
            or self._clock() > self._patience_ends
        ):
            self._asked_before, self._answered_before = self._asked, self._answered
            if self._last_turn < ENOUGH_HZ * max(self._delay_s, self._clock() - self._began):
                self._pause(self._delay_s)
            self._began = self._clock()
            self._patience_ends = self._began + self._delay_s
        self._asked += 1

    def arrived(self) -> None:
        """The request is on the event loop, and in the queue if it was valid; called there."""
        self._window_arrivals += 1
        if self.gathering:
            self._arrived += 1
            if not self._in_turn:
                self._in_turn = True
                # After the run that the queue scheduled: no gathering begins before its answers.
                self._loop.call_soon(self._end_turn)
        elif not self._watching:
            self._watch()

    def _end_turn(self) -> None:
        self._answered += self._arrived
        self._turns += 1
        self._gathered += self._arrived
        self._last_turn, self._arrived, self._in_turn = self._arrived, 0, False
        if self._turns == TURNS:
            self._judge_turns()
            self._begin_turns()

    def _begin_turns(self) -> None:
        self._turns = self._gathered = 0
        self._turns_start, self._turns_cpu = self._clock(), self._cpu_clock()

    def _judge_turns(self) -> None:
        """End the coalescing, long before the window does, if it is clearly of no use while CPU
        time is ample."""
        now = self._clock()
        elapsed = now - self._turns_start
        ample = self._cpu_clock() - self._turns_cpu < self._aim * self._quota * elapsed
        lost = self._gathered < LOST_RATE * self._rate_before * elapsed
        if ample and self._steps == STEPS and (lost or self._gathered < FEW * TURNS):
            self._rested_at = now + TRIAL_REST * elapsed
            self._gather(0)

    def _watch(self) -> None:
        self._watching = True
        self._begin_window()

    def _begin_window(self) -> None:
        self._window_arrivals = 0
        self._window_start = self._clock()
        self._window_cpu, self._window_models = self._cpu_clock(), self._models_clock()
        self._loop.call_later(WINDOW_S, self._judge)

    def _judge(self) -> None:
        """At a window's end, make the delay longer, shorter or none. Without requests there is no
        next window, so an idle server has no timer."""
        now = self._clock()
        elapsed = now - self._window_start
        rate = self._window_arrivals / elapsed
        cpu_s = self._cpu_clock() - self._window_cpu
        share = cpu_s / elapsed / self._quota
        if self._models_clock() - self._window_models > MODELS_SHARE * cpu_s:
            self._gather(0)
        elif self.gathering and rate < KEEP_RATE * self._rate_before and share < SCARCE:
            if self._longer:  # the delay grew in the last window, so it slowed the clients down
                self._rested_at = now + self._rest_s
                self._rest_s = min(self._rest_s * 2, LONGEST_REST_S)
            self._gather(0)
        else:
            self._adapt(now, rate, share)
        self._watching = self._window_arrivals > 0
        if self._watching:
            self._begin_window()

    def _adapt(self, now: float, rate: float, share: float) -> None:
        """Lengthen the delay above the aim, and shorten it if much less is used."""
        if share > SCARCE:
            steps = STEPS
        elif share > self._aim:
            steps = min(self._steps + 1, STEPS)
        elif share < self._aim / 2:  # well below, so that the delay does not follow every variation
            steps = self._steps // 2
        else:
            steps = self._steps
        if steps > self._steps:
            if now < self._rested_at:
                return
            if not self.gathering:
                self._rate_before, self._last_turn = 0.0, 0
                self._begin_turns()
            self._rate_before = max(self._rate_before, rate)
        elif self.gathering:
            self._rest_s = FIRST_REST_S
        self._gather(steps)

    def _gather(self, steps: int) -> None:
        self._longer = steps > self._steps
        self._steps, self._delay_s, self.gathering = steps, steps * self._step_s, steps > 0


def _pause_all_of_python() -> Callable[[float], None]:
    """A sleep that keeps the interpreter's lock, if the C library has one.

    It is kept on purpose: otherwise the event loop would take the lock for whatever else arrives,
    and answer it alone.
    """
    try:
        usleep = ctypes.PyDLL(None).usleep
    except (OSError, AttributeError):
        return time.sleep
    return lambda seconds: usleep(int(seconds * 1e6))
