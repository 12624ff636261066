"""Requests gather while CPU time is short, and only while that does not slow the clients down."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from halfcore.http.coalescing import (
    ENOUGH_HZ,
    FIRST_REST_S,
    MODELS_SHARE,
    STEPS,
    TRIAL_REST,
    TURNS,
    WINDOW_S,
    Coalescer,
)

AIM, LONGEST_S = 0.3, 0.002


class Machine(asyncio.AbstractEventLoop):
    """Time, CPU time and a loop's calls, all scripted."""

    def __init__(self) -> None:
        self.now = self.cpu = self.models = 0.0
        self.pauses, self.paused_s = 0, 0.0
        self._soon: list[Callable[[], object]] = []
        self._later: list[Callable[[], object]] = []
        self.coalescer = Coalescer(
            quota=0.5,
            aim=AIM,
            delay_s=LONGEST_S,
            loop=self,
            clock=lambda: self.now,
            cpu_clock=lambda: self.cpu,
            models_clock=lambda: self.models,
            pause=self._pause,
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

    def window(self, *, requests: int, share: float, per_turn: int = 4) -> bool:
        """A whole window of load at a share of the quota; returns whether requests gather after
        it."""
        start, cpu_start, turns = self.now, self.cpu, max(1, requests // per_turn)
        for turn in range(1, turns + 1):
            self.turn(min(per_turn, requests))
            self.now = start + WINDOW_S * turn / turns
            self.cpu = cpu_start + share * 0.5 * WINDOW_S * turn / turns
        callbacks, self._later = self._later, []
        for callback in callbacks:
            callback()
        return self.coalescer.gathering

    @property
    def timers(self) -> int:
        """Callbacks that wait."""
        return len(self._later)

    def _pause(self, seconds: float) -> None:
        self.pauses += 1
        self.paused_s = seconds


def test_nothing_gathers_while_cpu_time_is_ample() -> None:
    """Up to the aim no turn waits."""
    machine = Machine()
    assert not machine.window(requests=1000, share=AIM * 0.99)
    assert machine.pauses == 0


def test_requests_gather_once_the_quota_is_nearly_used() -> None:
    """Then the first request of each gathering waits, for the whole delay at once, and the others
    do not."""
    machine = Machine()
    assert machine.window(requests=1000, share=0.95)
    for _ in range(3):
        machine.turn(5)
    assert machine.pauses == 3
    assert machine.paused_s == LONGEST_S


def test_they_gather_only_as_long_as_it_takes() -> None:
    """Above the aim the delay grows by a step in each window, from it down to half of it it stays,
    below that it shrinks by half."""
    machine, delays = Machine(), []
    for share in (0.5, 0.5, 0.5, 0.31, AIM * 0.99, AIM * 0.6, AIM * 0.4, AIM * 0.4):
        machine.window(requests=1000, share=share)
        machine.turn(1)
        delays.append(machine.paused_s)
    assert delays == pytest.approx(
        [LONGEST_S / STEPS * steps for steps in (1, 2, 3, 4, 4, 4, 2, 1)]
    )
    assert not machine.window(requests=1000, share=AIM * 0.4)


def test_nothing_gathers_while_the_models_take_most_of_the_cpu_time() -> None:
    """There is little to save, and each wait would keep a model from running; nor does an earlier
    gathering go on then."""
    machine = Machine()
    assert machine.window(requests=1000, share=0.95)
    machine.models = machine.cpu + 0.95 * 0.5 * (MODELS_SHARE + 0.01)
    assert not machine.window(requests=1000, share=0.95)
    machine.models += 0.95 * 0.5 * (MODELS_SHARE - 0.01)
    assert machine.window(requests=1000, share=0.95)


@pytest.mark.parametrize(
    ("per_turn", "rate", "share", "waits"),
    [
        (1, 1000, AIM * 0.9, TURNS),
        (2, 1000, AIM * 0.9, 20),
        (4, 250, AIM * 0.9, TURNS),
        (4, 250, AIM * 1.1, 20),
        (4, 400, AIM * 0.9, 20),
    ],
    ids=[
        "one client",
        "two clients",
        "the rate is lost",
        "the rate is lost for want of CPU time",
        "a part of it is lost",
    ],
)
def test_it_ends_soon_where_it_is_of_no_use(
    per_turn: int, rate: int, share: float, waits: int
) -> None:
    """One client who waits for each answer meets no other, and a few only wait; it is tried again
    after some time."""
    machine = Machine()
    assert machine.window(requests=1000, share=0.95)
    start = machine.now
    for _ in range(20):
        machine.turn(per_turn)
        machine.now += per_turn / rate
        machine.cpu += per_turn / rate * 0.5 * share
    assert machine.pauses == waits
    if waits == TURNS:
        assert not machine.coalescer.gathering
        trial_s = per_turn / rate * (TURNS - 1)
        while machine.now < start + (TRIAL_REST + 1) * trial_s:
            assert not machine.coalescer.gathering
            machine.window(requests=1000, share=0.95)
        machine.window(requests=1000, share=0.95)
        assert machine.window(requests=1000, share=0.95)


def test_the_delay_has_an_end() -> None:
    """However much is used."""
    machine = Machine()
    for _ in range(2 * STEPS):
        machine.window(requests=1000, share=0.7)
    machine.turn(1)
    assert machine.paused_s == LONGEST_S


def test_after_a_turn_with_many_requests_none_waits() -> None:
    """After a turn of many requests the next one begins at once."""
    machine = Machine()
    machine.window(requests=1000, share=0.95)
    machine.turn(round(ENOUGH_HZ * LONGEST_S))
    machine.turn(round(ENOUGH_HZ * LONGEST_S))
    assert machine.pauses == 1


def test_a_pile_up_ends_no_waiting() -> None:
    """Requests that piled up while the quota was spent are one turn, but of a long time: the next
    request waits for others as before."""
    machine = Machine()
    machine.window(requests=1000, share=0.95)
    machine.turn(1)
    machine.now += 0.09
    machine.turn(round(ENOUGH_HZ * LONGEST_S))
    machine.now += 0.09
    machine.turn(1)
    assert machine.pauses == 3


def test_it_goes_on_while_the_rate_is_kept() -> None:
    """Half the cost at the same rate is what it is for: the share falls, and it stays."""
    machine = Machine()
    machine.window(requests=1000, share=0.95)
    assert all(machine.window(requests=980, share=0.5, per_turn=4) for _ in range(10))


def test_it_ends_at_once_and_rests_where_it_costs_clients_their_rate() -> None:
    """Few clients that wait for each answer: it is tried for one window, then after a rest, then
    after twice the rest."""
    machine = Machine()
    trials = [
        machine.window(requests=700, share=0.35)
        if machine.coalescer.gathering
        else machine.window(requests=1000, share=0.95)
        for _ in range(40)
    ]
    assert [number for number, gathers in enumerate(trials) if gathers] == [
        0,
        2 + int(FIRST_REST_S) - 1,
        2 + int(3 * FIRST_REST_S),
    ]


def test_each_step_has_to_keep_the_rate_that_there_was_without_any() -> None:
    """Small losses must not add up: what half the steps cost together ends them all, and is blamed
    on them."""
    machine = Machine()
    rates = [1000, 930, 860, 790]
    assert [machine.window(requests=rate, share=0.6) for rate in rates] == [True, True, True, False]
    assert not any(machine.window(requests=1000, share=0.6) for _ in range(int(FIRST_REST_S) - 1))
    assert machine.window(requests=1000, share=0.6)


def test_a_load_that_falls_is_not_the_delays_fault() -> None:
    """Once the delay has proved itself, fewer requests end it without a rest."""
    machine = Machine()
    machine.window(requests=1000, share=0.5)
    assert machine.window(requests=1000, share=AIM * 0.9)
    assert not machine.window(requests=700, share=AIM * 0.9)
    assert machine.window(requests=700, share=0.5)


def test_a_rate_that_falls_for_want_of_cpu_time_does_not_end_it() -> None:
    """A moment in which the machine was slow: without gathering each request would cost more, and
    the server would not come up again."""
    machine = Machine()
    machine.window(requests=1000, share=0.95)
    assert machine.window(requests=500, share=1.0)


def test_the_next_gathering_waits_until_everybody_of_the_last_was_answered() -> None:
    """Requests that come while a gathering's bodies are on their way, or are run, pass at once: a
    pause would hold those up."""
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
    """No request waits for it longer than another delay, and then only those that arrived with the
    others count."""
    machine = Machine()
    machine.window(requests=1000, share=0.95)
    machine.coalescer.arriving()  # and its body does not come
    machine.turn(2)
    assert machine.pauses == 1
    machine.now += 1.5 * LONGEST_S
    machine.turn(2)
    machine.turn(2)
    assert machine.pauses == 3


def test_it_ends_when_the_quota_is_ample_again() -> None:
    """A load that became small needs no gathering, and it begins again without a rest when the load
    is back."""
    machine = Machine()
    machine.window(requests=1000, share=0.95)
    machine.window(requests=1000, share=0.4)
    assert [machine.window(requests=900, share=AIM * 0.3) for _ in range(4)] == [
        True,
        True,
        True,
        False,
    ]
    assert machine.window(requests=1000, share=0.95)


def test_it_does_not_end_for_being_good() -> None:
    """It saves up to two thirds of what was used before: else it would begin and end by turns."""
    machine = Machine()
    machine.window(requests=1000, share=0.85)
    assert all(machine.window(requests=1000, share=0.85 / 3) for _ in range(10))


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
