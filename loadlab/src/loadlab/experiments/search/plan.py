"""The whole search as one decision: first the CPU limit with memory enough, then memory at the
least CPU limit that passed.

A CPU limit that is just enough while the machine is quiet passes three times and is INVALID the
next time. So what is INVALID in the search for memory, though memory is ample, counts against the
CPU limit: else chance would be read as a need of memory, and the minimum would not hold when it is
run again.

`decide` looks at the probes so far and at nothing else; `forecast` lets it decide on, against a
server that is supposed to fail below the middle of what is known, so that the remaining time can
be estimated.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

from loadlab.experiments.search import axis
from loadlab.experiments.search.axis import Axis, Edge, Try, Wish
from loadlab.experiments.search.form import Goal, Probe

_CENTICORES = (1, 2, 5, 10, 15, 20, 25, 50, 100, 200, 400, 800)
_MIB = (
    32,
    48,
    64,
    96,
    128,
    160,
    192,
    256,
    320,
    384,
    512,
    768,
    1024,
    1536,
    2048,
    3072,
    4096,
    6144,
    8192,
)
_CPU_STEP = 2
"""0.02 CPU."""
_MIB_STEP = 16
_BUSY = 0.7
"""Share of a quota that a server may use in the mean: beyond it chance fills whole periods."""
_AIR = 1.15
"""Memory limit that is expected to do, over the peak without one."""
_FORECAST_MOST = 200


class Step(NamedTuple):
    """A probe that is wanted."""

    centicores: int
    mib: int
    full: bool
    why: str

    @property
    def text(self) -> str:
        """For people."""
        return f"{self.centicores / 100:g} CPU, {self.mib:,} MiB ({self.why})"


class Found(NamedTuple):
    """The end of a search."""

    cpu: Edge
    """Hundredths of a core, with memory enough."""
    memory: Edge | None
    """MiB, at the least CPU limit that passed; None: no CPU limit did."""

    @property
    def minimum(self) -> tuple[int, int] | None:
        """Hundredths of a core and MiB that together passed every time at full length; None:
        nothing did."""
        if self.cpu.passes is None or self.memory is None or self.memory.passes is None:
            return None
        return self.cpu.passes, self.memory.passes


def decide(goal: Goal, probes: Sequence[Probe]) -> Step | Found:
    """The next probe, or what was found."""
    cpu = axis.decide(_cpu_axis(goal, probes), cpu_tries(goal, probes))
    if isinstance(cpu, Wish):
        return Step(cpu.value, goal.most_mib, cpu.full, cpu.why)
    if cpu.passes is None:
        return Found(cpu, None)
    memory = axis.decide(_memory_axis(goal, probes, cpu.passes), memory_tries(probes, cpu.passes))
    if isinstance(memory, Wish):
        return Step(cpu.passes, memory.value, memory.full, memory.why)
    return Found(cpu, memory)


def cpu_tries(goal: Goal, probes: Sequence[Probe]) -> list[Try]:
    """The probes with memory enough, and those whose memory was ample and which were INVALID twice
    in a row all the same."""
    doubtful = _doubtful(goal, probes)
    return [
        Try(each.centicores, each.full, each.outcome)
        for each in probes
        if each.mib == goal.most_mib
        or (each.outcome == "INVALID" and (each.centicores, each.mib) in doubtful)
    ]


def memory_tries(probes: Sequence[Probe], centicores: int) -> list[Try]:
    """The probes with one CPU limit; those with memory enough are among them."""
    return [
        Try(each.mib, each.full, each.outcome) for each in probes if each.centicores == centicores
    ]


def forecast(goal: Goal, probes: Sequence[Probe]) -> list[Step]:
    """The probes that are left, if the edges lie in the middle of the gaps; the first of them is
    the next one."""
    known, steps = list(probes), list[Step]()
    centicores = _expected(
        cpu_tries(goal, probes), _cpu_axis(goal, probes).guess, goal.most_centicores
    )
    mib = 0.0
    while isinstance(step := decide(goal, known), Step) and len(steps) < _FORECAST_MOST:
        if step.mib != goal.most_mib and not mib:
            mib = _expected(memory_tries(known, step.centicores), step.mib, goal.most_mib)
        passes = step.centicores >= centicores and (step.mib == goal.most_mib or step.mib >= mib)
        steps.append(step)
        known.append(
            Probe(
                centicores=step.centicores,
                mib=step.mib,
                full=step.full,
                why=step.why,
                outcome="PASS" if passes else "FAIL",
                seconds=0.0,
            )
        )
    return steps


def _doubtful(goal: Goal, probes: Sequence[Probe]) -> set[tuple[int, int]]:
    """CPU limits that are in doubt, each with the ample memory with which it was INVALID twice. Of
    the greatest nothing can be learned."""
    return {
        (limit, mib)
        for limit in {each.centicores for each in probes if each.centicores < goal.most_centicores}
        for mib in {
            each.mib for each in probes if _ample(goal, probes, limit) <= each.mib < goal.most_mib
        }
        if axis.undecided(mib, memory_tries(probes, limit))
    }


def _expected(tries: Sequence[Try], guess: int | None, most: int) -> float:
    """Where an edge may be: in the middle of its gap, or, while that is open below, a little below
    what passed or is guessed."""
    low, high = axis.gap(tries)
    if low is not None and high is not None:
        return math.sqrt(low * high)
    return min(high or most, guess or most) * 0.8


def _cpu_axis(goal: Goal, probes: Sequence[Probe]) -> Axis:
    rungs = [*(rung for rung in _CENTICORES if rung < goal.most_centicores), goal.most_centicores]
    first = next(
        (
            each
            for each in probes
            if each.outcome == "PASS" and each.centicores == goal.most_centicores
        ),
        None,
    )
    guess = goal.most_centicores // 4
    if first and first.figures and first.figures.cpu_cores:
        needed = first.figures.cpu_cores / _BUSY * 100
        guess = next((rung for rung in rungs if rung >= needed), goal.most_centicores)
    return Axis(most=goal.most_centicores, rungs=rungs, step=_CPU_STEP, guess=guess)


def _memory_axis(goal: Goal, probes: Sequence[Probe], centicores: int) -> Axis:
    rungs = [rung for rung in _MIB if rung < goal.most_mib]
    return Axis(
        most=goal.most_mib,
        rungs=rungs,
        step=_MIB_STEP,
        grain=_MIB_STEP,
        guess=_ample(goal, probes, centicores),
    )


def _ample(goal: Goal, probes: Sequence[Probe], centicores: int) -> int:
    """MiB that are expected to do with this CPU limit."""
    enough = [
        each.figures
        for each in probes
        if each.centicores == centicores and each.mib == goal.most_mib and each.figures
    ]
    peak = max(
        (found.memory_peak_mib for found in enough if found.memory_peak_mib),
        default=goal.most_mib / 4,
    )
    return math.ceil(peak * _AIR / _MIB_STEP) * _MIB_STEP
