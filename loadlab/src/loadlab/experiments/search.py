"""A stored search, what it tries next, and what it allows to be said. No clock, no server, no file:
history in, next probe out, so that a search that was killed continues with the same one.

docs/search.md says how it searches. The whole search is one decision: first the CPU limit with
memory enough, then memory at the least CPU limit that passed. A CPU limit that is just enough while
the machine is quiet passes three times and is INVALID the next times. So what is INVALID in the
search for memory, though memory is ample, counts against the CPU limit: else chance would be read
as a need of memory, and the minimum would not hold when it is run again.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import msgspec

from loadlab.experiments.runner import Experiment
from loadlab.verdict.figures import Figures

REPEATS = 3
"""Runs at the edge, all of which have to pass."""
PATIENCE = 3
"""INVALID runs in a row after which a value is undecided."""
_CENTICORES = (1, 2, 5, 10, 15, 20, 25, 50, 100, 200, 400, 800)
_MIB = (
    32, 48, 64, 96, 128, 160, 192, 256, 320, 384, 512, 768,
    1024, 1536, 2048, 3072, 4096, 6144, 8192,
)  # fmt: skip
_CPU_STEP = 2
"""0.02 CPU."""
_MIB_STEP = 16
_BUSY = 0.7
"""Share of a quota that a server may use in the mean: beyond it chance fills whole periods."""
_AIR = 1.15
"""Memory limit that is expected to do, over the peak without one."""
_FORECAST_MOST = 200

Judgement = Literal["PASS", "FAIL", "INVALID"]
Service = Literal["halfcore", "typical", "tuned", "onnx"]


class Try(NamedTuple):
    """A value that was tried."""

    value: int
    full: bool
    """At full length; else as short as the rules allow, to find the way."""
    outcome: Judgement


class Wish(NamedTuple):
    """A value to be tried next, and why."""

    value: int
    full: bool
    why: str
    twice: bool = False
    """Twice the full length."""


class Edge(NamedTuple):
    """What is known when nothing more is to be tried."""

    passes: int | None
    """The least that passed every time; None: not even the most did."""
    fails: int | None
    """The greatest below it that failed; None: none did."""
    undecided: tuple[int, ...] = ()
    """Values that were INVALID again and again: nothing is known of them."""


@dataclass(frozen=True)
class Axis:
    """One limit: the values that it may take, how finely it is searched, and what was tried."""

    most: int
    rungs: Sequence[int]
    """Usual sizes, upwards, up to `most`."""
    step: int
    """The gap between failing and passing need not be smaller."""
    guess: int
    """Where the edge is expected."""
    tries: Sequence[Try]
    grain: int = 1
    """Values between the rungs are multiples of it."""
    patience: int = PATIENCE

    def outcomes(self, value: int) -> str:
        """A letter for each try of a value."""
        return "".join(each.outcome[0] for each in self.tries if each.value == value)

    def refuted(self, value: int) -> bool:
        """It failed once, whatever else was seen of it."""
        return "F" in self.outcomes(value)

    def undecided(self, value: int) -> bool:
        """INVALID so often in a row that it is not tried once more."""
        return "I" * self.patience in self.outcomes(value)

    def gap(self) -> tuple[int | None, int | None]:
        """The greatest value that may not be claimed, and the least above it that passed so far;
        None: there is none."""
        values = {each.value for each in self.tries}
        low = max((v for v in values if self.refuted(v) or self.undecided(v)), default=None)
        passed = [each.value for each in self.tries if each.outcome == "PASS"]
        return low, min((v for v in passed if low is None or v > low), default=None)

    def decide(self) -> Wish | Edge:
        """What to try next, or what was found."""
        last = self.tries[-1].value if self.tries else 0
        invalid = len(self.outcomes(last)) - len(self.outcomes(last).rstrip("I"))
        if invalid and not self.undecided(last):
            why = f"again, for it was INVALID{' twice' if invalid > 1 else ''}"
            return Wish(last, True, why, twice=invalid > 1)
        low, high = self.gap()
        if low is None and high is None:
            return Wish(self.most, False, "first")
        if high is not None:
            if (following := self._narrow(low, high)) is not None:
                return following
            if (passed := self.tries.count(Try(high, True, "PASS"))) < REPEATS:
                return Wish(high, True, f"edge, {passed + 1} of {REPEATS}")
        if low is not None and (following := self._confirm(low)) is not None:
            return following
        values = sorted({each.value for each in self.tries})
        failed = [value for value in values if self.refuted(value)]
        doubtful = (value for value in values if self.undecided(value) and value not in failed)
        return Edge(high, max(failed, default=None), tuple(doubtful))

    def _narrow(self, low: int | None, high: int) -> Wish | None:
        """A value between the two, or below `high` while nothing failed; None: the gap is narrow
        enough."""
        below = [rung for rung in self.rungs if rung < high and (low is None or rung > low)]
        if low is None:
            if high == self.most and self.guess < high:
                return Wish(self.guess, False, "as predicted")
            return Wish(below[-1], False, "bracket") if below else None
        if high - low <= self.step:
            return None
        if below:
            return Wish(below[0], False, "bracket")
        # The multiple of `grain` strictly between that is nearest to the geometric mean
        first, last = low // self.grain + 1, -(-high // self.grain) - 1
        middle = min(max(round(math.sqrt(low * high) / self.grain), first), last) * self.grain
        return Wish(middle, False, "bisect") if first <= last else None

    def _confirm(self, low: int) -> Wish | None:
        """The failing end at full length, once; while it passes there, again: a short run that
        failed is then in doubt, and that is shown."""
        full = [each.outcome for each in self.tries if each.value == low and each.full]
        settled = "FAIL" in full or full.count("PASS") >= REPEATS
        if settled or not self.refuted(low) or self.undecided(low):
            return None
        again = "again, for it failed in a short run and passed in a long one"
        return Wish(low, True, again if "PASS" in full else "the failure, at full length")


class Step(msgspec.Struct, frozen=True):
    """A probe that is wanted."""

    centicores: int
    mib: int
    full: bool
    why: str
    """What the search wants of it."""
    twice: bool = False
    """Twice the full length."""

    @property
    def cpus(self) -> float:
        """The CPU limit in cores."""
        return self.centicores / 100

    @property
    def text(self) -> str:
        """For people."""
        return f"{self.cpus:g} CPU, {self.mib:,} MiB ({self.why})"


class Probe(Step, frozen=True, kw_only=True):
    """One load run."""

    outcome: Judgement
    could_start: bool = True
    sentence: str = ""
    """The verdict's, or how the start failed."""
    rules: list[str] = []
    """That made it INVALID."""
    run: str = ""
    """Of the load runs' history."""
    seconds: float
    """Everything, until the next probe may begin."""
    figures: Figures | None = None
    """None: the server did not start."""


class Goal(msgspec.Struct, frozen=True, kw_only=True):
    """Within what is searched, and how long a run is."""

    most_centicores: int
    """Hundredths of a core."""
    most_mib: int
    """Memory while the CPU limit is searched: enough, so that it decides nothing."""
    full_s: float
    """Steady state of the runs that count."""
    short_s: float
    """Of those that only find the way."""

    def steady_s(self, probe: Step) -> float:
        """Steady state of a run."""
        return (self.full_s if probe.full else self.short_s) * (2 if probe.twice else 1)


class Search(Experiment[Probe], frozen=True, kw_only=True):
    """A search with all its probes, in order; or, as a rerun, its minimum run again: there the last
    probe decides, as a FAIL, the last of three that passed, or of those that were INVALID."""

    kind: Literal["search", "rerun"] = "search"
    of: str = ""
    """Of a rerun: name of the search's file."""
    service: Service
    tier: str
    """The source of the greatest limits and of the environment."""
    scenario: str
    users: int
    model: str
    engine: str
    goal: Goal
    patience: int = PATIENCE
    """INVALID runs in a row after which limits are undecided."""

    @property
    def about(self) -> str:
        """Service, scenario and number of users."""
        return f"{self.service}-{self.scenario}-{self.users}"


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


def decide(search: Search) -> Step | Found:
    """The next probe, or what was found; by the probes so far and nothing else."""
    cpu = cpu_axis(search).decide()
    if isinstance(cpu, Wish):
        return Step(cpu.value, search.goal.most_mib, cpu.full, cpu.why, cpu.twice)
    if cpu.passes is None:
        return Found(cpu, None)
    memory = _memory_axis(search, cpu.passes).decide()
    if isinstance(memory, Wish):
        return Step(cpu.passes, memory.value, memory.full, memory.why, memory.twice)
    return Found(cpu, memory)


def cpu_axis(search: Search) -> Axis:
    """Its tries are the probes with memory enough, and those whose memory was ample and which were
    INVALID until they were undecided all the same. Of the greatest CPU limit nothing can be
    learned."""
    most, enough = search.goal.most_centicores, search.goal.most_mib
    doubtful = set[tuple[int, int]]()
    for limit in {each.centicores for each in search.rows} - {most}:
        memory = _memory_axis(search, limit)
        tried = {each.value for each in memory.tries if memory.guess <= each.value < enough}
        doubtful |= {(limit, mib) for mib in tried if memory.undecided(mib)}
    tries = [
        Try(each.centicores, each.full, each.outcome)
        for each in search.rows
        if each.mib == enough
        or (each.outcome == "INVALID" and (each.centicores, each.mib) in doubtful)
    ]
    rungs = [*(rung for rung in _CENTICORES if rung < most), most]
    passed = (row for row in search.rows if (row.outcome, row.centicores) == ("PASS", most))
    first, guess = next(passed, None), most // 4 or most
    if first and first.figures and first.figures.cpu_cores:
        needed = first.figures.cpu_cores / _BUSY * 100
        guess = next((rung for rung in rungs if rung >= needed), most)
    return Axis(most, rungs, _CPU_STEP, guess, tries, patience=search.patience)


def _memory_axis(search: Search, centicores: int) -> Axis:
    """With one CPU limit; the probes with memory enough are among its tries."""
    most = search.goal.most_mib
    rows = [each for each in search.rows if each.centicores == centicores]
    peaks = [each.figures.memory_peak_mib for each in rows if each.mib == most and each.figures]
    peak = max((peak for peak in peaks if peak), default=most / 4)
    return Axis(
        most,
        rungs=[rung for rung in _MIB if rung < most],
        step=_MIB_STEP,
        guess=math.ceil(peak * _AIR / _MIB_STEP) * _MIB_STEP,
        tries=[Try(each.mib, each.full, each.outcome) for each in rows],
        grain=_MIB_STEP,
        patience=search.patience,
    )


def rerun_left(search: Search, rerun: Search) -> list[Step]:
    """The minimum at full length, as often as it has to pass; what is INVALID is repeated as in the
    search, and one FAIL is the end."""
    found, said = decide(search), "".join(row.outcome[0] for row in rerun.rows)
    invalid, passed = len(said) - len(said.rstrip("I")), said.count("P")
    if "F" in said or invalid == PATIENCE or not isinstance(found, Found) or not found.minimum:
        return []
    left = [
        Step(*found.minimum, True, f"the minimum, run again, {number} of {REPEATS}")
        for number in range(passed + 1, REPEATS + 1)
    ]
    if invalid:
        left[0] = msgspec.structs.replace(
            left[0], why="again, for it was INVALID", twice=invalid > 1
        )
    return left


def forecast(search: Search) -> list[Step]:
    """The probes that are left, the next one first: the others if the edges lie in the middle of
    the gaps, or, while a gap is open below, a little below what passed or is guessed."""
    steps, most_mib, mib = list[Step](), search.goal.most_mib, 0.0
    cpu = cpu_axis(search)
    centicores = _expected(cpu, cpu.guess)
    while isinstance(step := decide(search), Step) and len(steps) < _FORECAST_MOST:
        if step.mib != most_mib and not mib:
            mib = _expected(_memory_axis(search, step.centicores), step.mib)
        passes = step.centicores >= centicores and (step.mib == most_mib or step.mib >= mib)
        steps.append(step)
        expected = Probe(
            **msgspec.structs.asdict(step), outcome="PASS" if passes else "FAIL", seconds=0.0
        )
        search = msgspec.structs.replace(search, rows=[*search.rows, expected])
    return steps


def _expected(axis: Axis, guess: int) -> float:
    low, high = axis.gap()
    if low is not None and high is not None:
        return math.sqrt(low * high)
    return min(high or axis.most, guess) * 0.8
