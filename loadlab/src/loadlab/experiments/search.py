"""A stored search, what it tries next, and what it allows to be said.

The whole search is one decision: first the CPU limit with memory enough, then memory at the least
CPU limit that passed. A CPU limit that is just enough while the machine is quiet passes three times
and is INVALID the next times. So what is INVALID in the search for memory, though memory is ample,
counts against the CPU limit: else chance would be read as a need of memory, and the minimum would
not hold when it is run again.
"""

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

from loadlab.experiments import axis, runner
from loadlab.experiments.axis import PATIENCE, REPEATS, Axis, Edge, Judgement, Try, Wish
from loadlab.experiments.runner import Experiment
from loadlab.verdict.figures import Figures

Service = Literal["halfcore", "typical", "tuned", "onnx"]
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
_REPLICAS = (
    "One replica. Several replicas with the same total are not searched: as processes in control "
    "groups they have no balancer."
)


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


def reruns(file: Path) -> list[Search]:
    """All reruns of a stored search, the oldest first; raises `StoreError`."""
    files = sorted(file.parent.glob(f"*-rerun-{file.stem.partition('-search-')[2]}.json"))
    return [rerun for each in files if (rerun := runner.load(each, Search)).of == file.name]


def decide(search: Search) -> Step | Found:
    """The next probe, or what was found; by the probes so far and nothing else."""
    cpu = axis.decide(_cpu_axis(search), cpu_tries(search))
    if isinstance(cpu, Wish):
        return Step(cpu.value, search.goal.most_mib, cpu.full, cpu.why, cpu.twice)
    if cpu.passes is None:
        return Found(cpu, None)
    memory = axis.decide(_memory_axis(search, cpu.passes), memory_tries(search, cpu.passes))
    if isinstance(memory, Wish):
        return Step(cpu.passes, memory.value, memory.full, memory.why, memory.twice)
    return Found(cpu, memory)


def cpu_tries(search: Search) -> list[Try]:
    """The probes with memory enough, and those whose memory was ample and which were INVALID until
    they were undecided all the same. Of the greatest CPU limit nothing can be learned."""
    goal, doubtful = search.goal, set[tuple[int, int]]()
    for limit in {each.centicores for each in search.rows} - {goal.most_centicores}:
        tries, ample = memory_tries(search, limit), _ample(search, limit)
        doubtful |= {
            (limit, mib)
            for mib in {each.value for each in tries if ample <= each.value < goal.most_mib}
            if axis.undecided(mib, tries, search.patience)
        }
    return [
        Try(each.centicores, each.full, each.outcome)
        for each in search.rows
        if each.mib == goal.most_mib
        or (each.outcome == "INVALID" and (each.centicores, each.mib) in doubtful)
    ]


def memory_tries(search: Search, centicores: int) -> list[Try]:
    """The probes with one CPU limit; those with memory enough are among them."""
    rows = [each for each in search.rows if each.centicores == centicores]
    return [Try(each.mib, each.full, each.outcome) for each in rows]


def forecast(search: Search) -> list[Step]:
    """The probes that are left, the next one first: the others if the edges lie in the middle of
    the gaps, or, while a gap is open below, a little below what passed or is guessed."""
    goal, steps, mib = search.goal, list[Step](), 0.0
    guess = _cpu_axis(search).guess or goal.most_centicores
    centicores = _expected(search, cpu_tries(search), guess, goal.most_centicores)
    while isinstance(step := decide(search), Step) and len(steps) < _FORECAST_MOST:
        if step.mib != goal.most_mib and not mib:
            tries = memory_tries(search, step.centicores)
            mib = _expected(search, tries, step.mib, goal.most_mib)
        passes = step.centicores >= centicores and (step.mib == goal.most_mib or step.mib >= mib)
        steps.append(step)
        expected = Probe(
            **msgspec.structs.asdict(step), outcome="PASS" if passes else "FAIL", seconds=0.0
        )
        search = msgspec.structs.replace(search, rows=[*search.rows, expected])
    return steps


def _expected(search: Search, tries: Sequence[Try], guess: int, most: int) -> float:
    low, high = axis.gap(tries, search.patience)
    if low is not None and high is not None:
        return math.sqrt(low * high)
    return min(high or most, guess) * 0.8


def _cpu_axis(search: Search) -> Axis:
    most = search.goal.most_centicores
    rungs = [*(rung for rung in _CENTICORES if rung < most), most]
    passed = (row for row in search.rows if (row.outcome, row.centicores) == ("PASS", most))
    first, guess = next(passed, None), most // 4
    if first and first.figures and first.figures.cpu_cores:
        needed = first.figures.cpu_cores / _BUSY * 100
        guess = next((rung for rung in rungs if rung >= needed), most)
    return Axis(most=most, rungs=rungs, step=_CPU_STEP, guess=guess, patience=search.patience)


def _memory_axis(search: Search, centicores: int) -> Axis:
    return Axis(
        most=search.goal.most_mib,
        rungs=[rung for rung in _MIB if rung < search.goal.most_mib],
        step=_MIB_STEP,
        grain=_MIB_STEP,
        guess=_ample(search, centicores),
        patience=search.patience,
    )


def _ample(search: Search, centicores: int) -> int:
    """MiB that are expected to do with this CPU limit."""
    most = search.goal.most_mib
    peaks = [
        row.figures.memory_peak_mib
        for row in search.rows
        if (row.centicores, row.mib) == (centicores, most) and row.figures
    ]
    peak = max((peak for peak in peaks if peak), default=most / 4)
    return math.ceil(peak * _AIR / _MIB_STEP) * _MIB_STEP


def sentences(search: Search) -> list[str]:
    """The minimum, what fails below it and why, and what proves nothing."""
    found = decide(search)
    if not isinstance(found, Found):
        next_is = f"The search is not finished; next is {found.text}."
        return [_so_far(search), *_invalid(search), next_is]
    return [
        _minimum(search, found),
        *(_failure(search, *end) for end in _ends(search, found)),
        *_invalid(search),
        *_undecided(search, found),
        _REPLICAS,
    ]


def again(rerun: Search) -> str:
    """What a minimum did when it was run again."""
    last, outcomes = rerun.rows[-1], ", then ".join(probe.outcome for probe in rerun.rows)
    when = f"{rerun.started_at}, commit {rerun.fingerprint.checkout}; {rerun.fingerprint.hardware}"
    said = f"Run again with {last.cpus:g} CPU, {last.mib:,} MiB ({when}): {outcomes}."
    if last.outcome != "PASS":
        said += f" {_why(last)}"
    if last.outcome == "FAIL":
        said += " This refutes the minimum."
    if not (found := last.figures):
        return said
    latencies = (found.p50_ms, found.p95_ms, found.p99_ms)
    spread = " / ".join("–" if each is None else f"{each:,.1f}" for each in latencies)
    used = "" if found.cpu_cores is None else f"; {found.cpu_cores:.3f} CPU used"
    return f"{said} p50, p95, p99 {spread} ms; {found.errors:,} errors{used}."


def earlier(search: Search, link: str) -> str:
    """What a search found that was made before the one that is shown: a minimum depends on the
    machine's hour."""
    return (
        f"An earlier search ([{search.started_at}]({link}), commit "
        f"{search.fingerprint.checkout}): {sentences(search)[0]}"
    )


def counted(reruns: Sequence[Search]) -> str:
    """How often a minimum held when it was run again."""
    counts = sorted(Counter(each.rows[-1].outcome for each in reruns).items(), reverse=True)
    listed = ", ".join(f"{times} {outcome}" for outcome, times in counts)
    return f"run again: {listed} of {len(reruns)}"


def _so_far(search: Search) -> str:
    low, high = axis.gap(cpu_tries(search), search.patience)
    passed = (
        "no CPU limit has passed yet"
        if high is None
        else f"the least CPU limit that passed is {high / 100:g}"
    )
    blocked = "nothing below it has failed" if low is None else f"{low / 100:g} did not"
    return f"So far, with {search.goal.most_mib:,} MiB: {passed}; {blocked}."


def _minimum(search: Search, found: Found) -> str:
    who, goal = f"{search.users:,} users, scenario {search.scenario}, {search.service}", search.goal
    if found.minimum:
        centicores, mib = found.minimum
        fails = ", and ".join(name for *_, name in _ends(search, found)) or "none that was tried"
        return (
            f"{who}: minimum that passes {REPEATS}/{REPEATS}: {centicores / 100:g} CPU, {mib:,} "
            f"MiB; largest that fails: {fails}."
        )
    most = f"{goal.most_centicores / 100:g} CPU, {goal.most_mib:,} MiB"
    if found.cpu.fails is None:
        often = _often(search)
        return f"{who}: nothing is proven, for the greatest limits ({most}) were INVALID {often}."
    return f"{who}: not even the greatest limits ({most}) pass."


def _ends(search: Search, found: Found) -> list[tuple[int, int, str]]:
    """The failing ends: hundredths of a core, MiB, and both in words."""
    ends, most = [], search.goal.most_mib
    if found.cpu.fails is not None:
        fails = found.cpu.fails
        ends.append((fails, most, f"{fails / 100:g} CPU with {most:,} MiB"))
    if found.memory and found.memory.fails is not None and found.cpu.passes is not None:
        fails, passes = found.memory.fails, found.cpu.passes
        ends.append((passes, fails, f"{fails:,} MiB with {passes / 100:g} CPU"))
    return ends


def _failure(search: Search, centicores: int, mib: int, name: str) -> str:
    mine = [row for row in search.rows if (row.centicores, row.mib) == (centicores, mib)]
    last = [row for row in mine if row.outcome == "FAIL"][-1]
    passed = sum(row.outcome == "PASS" for row in mine)
    also = f" It passed in {passed} of its {len(mine)} runs all the same." if passed else ""
    return f"Fails, {name}: {_why(last)}{also}"


def _why(probe: Probe) -> str:
    return probe.sentence if probe.could_start else f"cannot start: {probe.sentence.rstrip('.')}."


def _often(search: Search) -> str:
    return "twice" if search.patience == 2 else f"{search.patience} times"


def _invalid(search: Search) -> list[str]:
    numbers = [str(n) for n, row in enumerate(search.rows, 1) if row.outcome == "INVALID"]
    listed = f"{len(numbers)} of {len(search.rows)} probes ({', '.join(numbers)})"
    most = "once" if search.patience == 2 else "twice"
    said = (
        f"INVALID, for or against nothing: {listed}; none was repeated more than {most} in a row."
    )
    return [said] if numbers else []


def _undecided(search: Search, found: Found) -> list[str]:
    cpu = [(value, f"{value / 100:g}") for value in found.cpu.undecided]
    memory = [(value, f"{value:g}") for value in found.memory.undecided] if found.memory else []
    said = []
    for values, unit, field in ((cpu, "CPU", "centicores"), (memory, "MiB", "mib")):
        listed = []
        for value, text in values:
            broken = {
                rule
                for row in search.rows
                if getattr(row, field) == value and row.outcome == "INVALID"
                for rule in row.rules
            }
            rules = sorted(broken, key=lambda rule: int(rule[1:]))
            listed.append(f"{text} ({', '.join(rules)})" if rules else text)
        if listed:
            said.append(
                f"Undecided, because INVALID {_often(search)} in a row: {', '.join(listed)} "
                f"{unit}. The minimum is above them, and may be too great for this reason."
            )
    return said
