"""V13: when load is steady: neighbouring windows agree in rate and p95. It ends the settling of a
run, and guards its steady phase."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from loadlab.record.schema import Counts, Objective, PhaseName, Thresholds
from loadlab.record.store import Log
from loadlab.verdict.check import Check, Unit
from loadlab.verdict.figures import UNDER_LOAD, answered, by_second, done, response_ms

WINDOWS = 3
"""Neighbours that must agree."""
_WHOLE = 0.95
"""Of the steady phase as asked for: it was not cut short."""


@dataclass(frozen=True)
class Window:
    """Some seconds of load."""

    answered: int
    p95_ms: float | None


def steady(log: Log, rules: Thresholds) -> list[Check]:
    """Settled before, whole, and without a trend that leads out of the objective."""
    least_s, objective = log.run.scenario.duration_s * _WHOLE, log.run.criteria.objective
    return [
        *agreement(_of_phase(log, rules, "settle"), rules, objective),
        _check("steady lasted", log.lasted_s("steady"), least_s, "s", at_least=True),
        _trend(_of_phase(log, rules, "steady"), rules, objective),
        *_backlog(log, objective),
    ]


def _of_phase(log: Log, rules: Thresholds, name: PhaseName) -> list[Window]:
    """A phase of the users, without the cut second at each edge."""
    if (phase := log.phase(name)) is None:
        return []
    first, end = math.ceil(phase.start_s), math.floor(log.end_of(phase))
    return windows(log.of("users", name), first, end, rules.v13_window_s)


def windows(lines: Sequence[Counts], first: int, end: int, seconds: int) -> list[Window]:
    """The time from `first` to `end` in windows of so many seconds; a rest that is shorter is left
    out."""
    found = []
    for start in range(first, end - seconds + 1, seconds):
        inside = [line for line in lines if start <= line.t < start + seconds]
        found.append(Window(answered(inside), response_ms(inside, 0.95)))
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
        return [_check("windows before steady", len(last), WINDOWS, at_least=True)]
    counts, p95s = [window.answered for window in last], [window.p95_ms or 0.0 for window in last]
    chance = 3 * math.sqrt(2 / min(counts))
    least, most = min(p95s), max(p95s)
    allowed_ms = ((objective and objective.p95_ms) or 0.0) - least
    allowed_ms = max(rules.v13_agreement * least, rules.v13_tolerance_ms, allowed_ms)
    rates_differ, rates_may = max(counts) / min(counts) - 1, max(rules.v13_agreement, chance)
    return [
        _check("rates differ", rates_differ, rates_may, "share"),
        _check("p95s differ", most - least, allowed_ms, "ms"),
    ]


def _trend(found: Sequence[Window], rules: Thresholds, objective: Objective) -> Check:
    """Where the p95s would be after one more run of the same length; that they are too few to say
    so, if so.

    A trend matters if it leads out of the objective, or began outside it. Without an objective for
    p95, the drift itself is limited.
    """
    p95s = [window.p95_ms for window in found if window.p95_ms is not None]
    if len(p95s) < WINDOWS:
        return _check("windows in steady", len(p95s), WINDOWS, at_least=True)
    first, last = _line(p95s)
    if objective.p95_ms is None:
        limit = max(rules.v13_trend * statistics.median(p95s), rules.v13_tolerance_ms)
        return _check("p95 drifts by", abs(last - first), limit, "ms")
    ahead = max(first, last, last + (last - first))
    return _check("p95 extrapolated by one more run", ahead, objective.p95_ms, "ms")


def _backlog(log: Log, objective: Objective) -> list[Check]:
    """The requests that were due but not answered, as seconds of work, after one more run of the
    same length; it is judged if p99 is."""
    if objective.p99_ms is None:
        return []
    waiting, lasted = _backlog_by_second(log), log.lasted_s("steady")
    done_hz = done(log.of("users", "steady")) / lasted if lasted else 0.0
    measured = None
    if len(waiting) >= WINDOWS and done_hz:
        first, last = _line(waiting)
        measured = max(first, last, last + (last - first), 0.0) / done_hz * 1000
    return [_check("backlog extrapolated by one more run", measured, objective.p99_ms, "ms")]


def _backlog_by_second(log: Log) -> list[float]:
    """Requests due but not ended, at the end of each second of the steady phase."""
    steady_ts = {each.t for each in log.of("users", "steady")}
    found, waiting = [], 0
    for t, lines in by_second(log.of("users", *UNDER_LOAD)).items():
        waiting += sum(line.intended for line in lines) - done(lines)
        if t in steady_ts:
            found.append(float(waiting))
    return found


def _line(values: Sequence[float]) -> tuple[float, float]:
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


def _check(
    what: str, measured: float | None, limit: float, unit: Unit = "", *, at_least: bool = False
) -> Check:
    """An overloaded server is not steady: no FAIL needs this."""
    return Check(what, measured, limit, unit, at_least, fail_needs=False)
