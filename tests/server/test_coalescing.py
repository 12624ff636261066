"""Requests gather while CPU time is short, and only while that does not slow the clients down."""

import asyncio
from collections.abc import Callable
from typing import Any

from halfcore.coalescing import ENOUGH_HZ, FIRST_REST_S, WINDOW_S, Coalescer


class Machine(asyncio.AbstractEventLoop):
    """Time, CPU time and a loop's calls, all scripted."""

    def __init__(self) -> None:
        self.now = self.cpu = 0.0
        self.pauses = 0
        self._soon: list[Callable[[], object]] = []
        self._later: list[Callable[[], object]] = []
        self.coalescer = Coalescer(
            quota=0.5, delay_s=0.002, loop=self, clock=lambda: self.now, cpu_clock=lambda: self.cpu, pause=self._pause
        )

    def call_soon(self, callback: Any, *args: Any, **_: Any) -> Any:
        """Keep it for the turn's end."""
        self._soon.append(lambda: callback(*args))

    def call_later(self, delay: float, callback: Any, *args: Any, **_: Any) -> Any:
        """Keep it for the window's end."""
        assert delay == WINDOW_S
        self._later.append(lambda: callback(*args))

    def turn(self, requests: int) -> None:
        """A turn of the loop in which so many requests arrive."""
        for _ in range(requests):
            self.coalescer.arriving()
        for _ in range(requests):
            self.coalescer.arrived()
        callbacks, self._soon = self._soon, []
        for callback in callbacks:
            callback()

    def window(self, *, requests: int, share: float, per_turn: int = 1) -> bool:
        """A whole window of load at a share of the quota; returns whether requests gather after it."""
        for _ in range(requests // per_turn):
            self.turn(per_turn)
        self.now += WINDOW_S
        self.cpu += share * 0.5 * WINDOW_S
        callbacks, self._later = self._later, []
        for callback in callbacks:
            callback()
        return self.coalescer.gathering

    @property
    def timers(self) -> int:
        """Callbacks that wait."""
        return len(self._later)

    def _pause(self, seconds: float) -> None:
        assert seconds == 0.002
        self.pauses += 1


def test_nothing_gathers_while_cpu_time_is_ample() -> None:
    """Below 80 % of the quota no turn waits."""
    machine = Machine()
    assert not machine.window(requests=1000, share=0.7)
    assert machine.pauses == 0


def test_requests_gather_once_the_quota_is_nearly_used() -> None:
    """Then the first request of each gathering waits, and the others do not."""
    machine = Machine()
    assert machine.window(requests=1000, share=0.95)
    for _ in range(3):
        machine.turn(5)
    assert machine.pauses == 3


def test_a_turn_with_company_enough_is_not_waited_for() -> None:
    """After a turn of many requests the next one begins at once."""
    machine = Machine()
    machine.window(requests=1000, share=0.95)
    machine.turn(round(ENOUGH_HZ * 0.002))
    machine.turn(round(ENOUGH_HZ * 0.002))
    assert machine.pauses == 1


def test_it_goes_on_while_the_rate_is_kept() -> None:
    """Half the cost at the same rate is what it is for: the share falls, and it stays."""
    machine = Machine()
    machine.window(requests=1000, share=0.95)
    assert all(machine.window(requests=980, share=0.5, per_turn=4) for _ in range(10))


def test_it_ends_at_once_and_rests_where_it_costs_clients_their_rate() -> None:
    """Few clients that wait for each answer: it is tried for one window, then after a rest, then after twice the rest."""
    machine = Machine()
    trials = [
        machine.window(requests=100, share=0.3) if machine.coalescer.gathering else machine.window(requests=1000, share=0.95)
        for _ in range(40)
    ]
    assert [number for number, gathers in enumerate(trials) if gathers] == [0, 2 + int(FIRST_REST_S) - 1, 2 + int(3 * FIRST_REST_S)]


def test_a_rate_that_falls_for_want_of_cpu_time_does_not_end_it() -> None:
    """A moment in which the machine was slow: without gathering each request would cost more, and the server would not come up again."""
    machine = Machine()
    machine.window(requests=1000, share=0.95)
    assert machine.window(requests=500, share=1.0)


def test_the_next_gathering_waits_until_everybody_of_the_last_was_answered() -> None:
    """Requests that come while a gathering's bodies are on their way, or are run, pass at once: a pause would hold those up."""
    machine = Machine()
    machine.window(requests=1000, share=0.95)
    for _ in range(3):
        machine.coalescer.arriving()
    machine.coalescer.arrived()
    machine.coalescer.arrived()
    machine.turn(0)  # two of three are answered
    machine.coalescer.arriving()
    assert machine.pauses == 1
    machine.coalescer.arrived()
    machine.coalescer.arrived()
    machine.coalescer.arriving()
    assert machine.pauses == 1, "all are there, and none is answered"
    machine.coalescer.arrived()
    machine.turn(0)
    machine.coalescer.arriving()
    assert machine.pauses == 2


def test_a_slow_body_ends_no_gathering_for_good() -> None:
    """Nobody waits for it longer than another delay, and then only those that came with the others count."""
    machine = Machine()
    machine.window(requests=1000, share=0.95)
    machine.coalescer.arriving()  # and its body does not come
    machine.turn(2)
    assert machine.pauses == 1
    machine.now += 0.003
    machine.turn(2)
    machine.turn(2)
    assert machine.pauses == 3


def test_it_ends_when_the_quota_is_ample_again() -> None:
    """A load that became small needs no gathering, and it begins again without a rest when the load is back."""
    machine = Machine()
    machine.window(requests=1000, share=0.95)
    machine.window(requests=1000, share=0.4)
    assert not machine.window(requests=900, share=0.15)
    assert machine.window(requests=1000, share=0.95)


def test_it_does_not_end_for_being_good() -> None:
    """It saves up to two thirds of what was used before: else it would begin and end by turns."""
    machine = Machine()
    machine.window(requests=1000, share=0.85)
    assert all(machine.window(requests=1000, share=0.28) for _ in range(10))


def test_an_idle_server_has_no_timer() -> None:
    """The last window without a request is the last timer; the next request starts another."""
    machine = Machine()
    machine.window(requests=1000, share=0.95)
    assert machine.timers == 1
    machine.window(requests=0, share=0.0)
    assert machine.timers == 0
    assert not machine.coalescer.gathering
    machine.turn(1)
    assert machine.timers == 1
