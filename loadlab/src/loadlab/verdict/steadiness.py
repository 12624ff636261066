"""When load is steady: neighbouring windows agree in rate and p95. It ends the settling of a run,
and guards its steady phase."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from loadlab.record.histogram import merge
from loadlab.record.read import Log
from loadlab.record.schema import PhaseName
from loadlab.verdict.check import Check
from loadlab.verdict.criteria import Objective, Thresholds
from loadlab.verdict.figures import answered, done, quantile_ms

WINDOWS = 3
"""Neighbours that must agree."""


@dataclass(frozen=True)
class Window:
    """Some seconds of load."""

    seconds: float
    answered: int
    p95_ms: float | None


def windows(log: Log, seconds: int, *phases: PhaseName) -> list[Window]:
    """The users' phases in windows of so many seconds; a rest that is shorter is left out, and so
    is the cut second at each edge."""
    found = []
    for phase in phases:
        began = log.phase(phase)
        if began is None:
            continue
        first, last = math.ceil(began.start_s), math.floor(log.end_of(began))
        lines = log.of("users", phase)
        for start in range(first, last - seconds + 1, seconds):
            inside = [line for line in lines if start <= line.t < start + seconds]
            found.append(
                Window(
                    seconds,
                    answered(inside),
                    quantile_ms(merge(line.response for line in inside), 0.95),
                )
            )
    return found


def agreement(
    found: Sequence[Window], rules: Thresholds, objective: Objective | None = None
) -> list[Check]:
    """Whether the last three windows agree.

    Rates may differ by `v13_agreement`, or by what counting so few answers does by itself (3
    √(2/n)); p95s by `v13_agreement` or `v13_tolerance_ms`, whichever is more. With an objective,
    p95s may also differ as long as each of them meets it: a run settles by the windows alone, and
    is judged by the objective.
    """
    last = [window for window in found[-WINDOWS:] if window.answered and window.p95_ms is not None]
    if len(last) < WINDOWS:
        return [
            Check(
                what="windows before steady",
                measured=len(last),
                limit=WINDOWS,
                at_least=True,
                fail_needs=False,
            )
        ]
    counts, p95s = [window.answered for window in last], [window.p95_ms or 0.0 for window in last]
    chance = 3 * math.sqrt(2 / min(counts))
    rates_differ = max(counts) / min(counts) - 1
    return [
        Check(
            what="rates differ",
            measured=rates_differ,
            limit=max(rules.v13_agreement, chance),
            unit="share",
            fail_needs=False,
        ),
        Check(
            what="p95s differ",
            measured=max(p95s) - min(p95s),
            limit=max(
                rules.v13_agreement * min(p95s),
                rules.v13_tolerance_ms,
                ((objective and objective.p95_ms) or 0.0) - min(p95s),
            ),
            unit="ms",
            fail_needs=False,
        ),
    ]


def trend(found: Sequence[Window], rules: Thresholds, objective: Objective) -> Check:
    """Where the p95s would be after one more run of the same length; that they are too few to say
    so, if so.

    A trend matters if it leads out of the objective, or began outside it. Without an objective for
    p95, the drift itself is limited.
    """
    p95s = [window.p95_ms for window in found if window.p95_ms is not None]
    if len(p95s) < WINDOWS:
        return Check(
            what="windows in steady",
            measured=len(p95s),
            limit=WINDOWS,
            at_least=True,
            fail_needs=False,
        )
    first, last = line(p95s)
    if objective.p95_ms is None:
        limit = max(rules.v13_trend * statistics.median(p95s), rules.v13_tolerance_ms)
        drift = abs(last - first)
        return Check(what="p95 drifts by", measured=drift, limit=limit, unit="ms", fail_needs=False)
    return Check(
        what="p95 extrapolated by one more run",
        measured=max(first, last, last + (last - first)),
        limit=objective.p95_ms,
        unit="ms",
        fail_needs=False,
    )


def backlog(log: Log, objective: Objective) -> list[Check]:
    """The requests that were due but not answered, as seconds of work, after one more run of the
    same length; it is judged if p99 is."""
    waiting, done_hz = _backlog_by_second(log), _done_hz(log)
    if objective.p99_ms is None:
        return []
    measured = None
    if len(waiting) >= WINDOWS and done_hz:
        first, last = line(waiting)
        measured = max(first, last, last + (last - first), 0.0) / done_hz * 1000
    return [
        Check(
            what="backlog extrapolated by one more run",
            measured=measured,
            limit=objective.p99_ms,
            unit="ms",
            fail_needs=False,
        )
    ]


def _backlog_by_second(log: Log) -> list[float]:
    """Requests due but not ended, at the end of each second of the steady phase."""
    due: dict[int, int] = {}
    steady = {each.t for each in log.of("users", "steady")}
    for each in log.of("users", "ramp", "settle", "steady"):
        due[each.t] = due.get(each.t, 0) + each.intended - done([each])
    found, waiting = [], 0
    for t in sorted(due):
        waiting += due[t]
        if t in steady:
            found.append(float(waiting))
    return found


def _done_hz(log: Log) -> float | None:
    lasted = log.lasted_s("steady")
    return done(log.of("users", "steady")) / lasted if lasted else None


def line(values: Sequence[float]) -> tuple[float, float]:
    """The first and the last value of Tukey's resistant line (Exploratory Data Analysis, 1977).

    It goes from the median of the first third to that of the last: one window in which the machine
    was slow is no trend, but it tilts a line of least squares. A third that is slow for the most
    part counts.
    """
    third = len(values) // 3
    first, last = statistics.median(values[:third]), statistics.median(values[-third:])
    slope = (last - first) / (len(values) - third)
    beyond = slope * (third - 1) / 2
    return first - beyond, last + beyond
