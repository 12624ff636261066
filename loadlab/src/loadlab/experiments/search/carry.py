"""Carrying a search out: probe after probe, each kept at once, until nothing is left to try or the
time is spent."""

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import msgspec

from loadlab.experiments.search.form import Goal, Probe, Search
from loadlab.experiments.search.plan import Found, Step, decide, forecast
from loadlab.run.phases import repeated_s

_AROUND_S = 75.0
"""What a run takes besides ramp, steady and repeated phases, as long as none was measured: floor,
start, warm-up, settling, drain, …"""


@dataclass
class Budget:
    """Time that this invocation may take."""

    seconds: float
    clock: Callable[[], float] = time.monotonic
    _began: float = field(init=False)

    def __post_init__(self) -> None:
        self._began = self.clock()

    @property
    def left_s(self) -> float:
        """What is left of it."""
        return self.seconds - (self.clock() - self._began)


@dataclass(frozen=True)
class Outlook:
    """The expected probes and their time, before a probe begins."""

    number: int
    """Of the probe, from 1."""
    steps: Sequence[Step]
    """Expected: the next probe first."""
    expected_s: float
    """Of all of them."""
    left_s: float
    """Of the budget."""


def carry_out(
    search: Search,
    probe: Callable[[Step, int], Probe],
    *,
    keep: Callable[[Search], object],
    budget: Budget,
    ramp_s: float,
    show: Callable[[Outlook], object],
) -> tuple[Search, Found | None]:
    """Continue a search; returns it as it then is, and what was found, or None if the budget does
    not suffice for the next probe.

    Args:
        search: new, or as it was kept.
        probe: carries out a step, the how-manieth of the search.
        keep: stores the search; called after every probe.
        budget: no probe is begun that is not expected to end within it.
        ramp_s: how long the users' ramp takes.
        show: called before every probe.
    """
    while True:
        step = decide(search.goal, search.probes)
        if isinstance(step, Found):
            return search, step
        if expected_s(step, search.goal, search.probes, ramp_s) > budget.left_s:
            return search, None
        steps = forecast(search.goal, search.probes)
        whole_s = math.fsum(expected_s(each, search.goal, search.probes, ramp_s) for each in steps)
        number = len(search.probes) + 1
        show(Outlook(number, steps, whole_s, budget.left_s))
        search = msgspec.structs.replace(search, probes=[*search.probes, probe(step, number)])
        keep(search)


def expected_s(step: Step, goal: Goal, probes: Sequence[Probe], ramp_s: float) -> float:
    """How long a probe should take: as long as those like it that passed, or what its phases add up
    to. One that fails ends sooner."""
    if like := [
        each.seconds for each in probes if each.full == step.full and each.outcome == "PASS"
    ]:
        return statistics.median(like)
    steady_s = goal.steady_s(full=step.full)
    return _AROUND_S + ramp_s + steady_s + repeated_s(steady_s)
