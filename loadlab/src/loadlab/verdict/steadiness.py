"""When load is steady: neighbouring windows agree in rate and p95. It ends the settling of a run,
and guards its steady phase."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from loadlab.criteria import Thresholds
from loadlab.record.form import PhaseName
from loadlab.record.packed import merge
from loadlab.record.read import Log
from loadlab.verdict.check import Check
from loadlab.verdict.figures import answered, quantile_ms

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


def agreement(found: Sequence[Window], rules: Thresholds) -> list[Check]:
    """Whether the last three windows agree.

    Rates may differ by `v13_agreement`, or by what counting so few answers does by itself (3
    √(2/n)); p95s by `v13_agreement` or `v13_tolerance_ms`, whichever is more.
    """
    last = [window for window in found[-WINDOWS:] if window.answered and window.p95_ms is not None]
    if len(last) < WINDOWS:
        return [
            Check(
                what="windows before steady",
                measured=len(last),
                limit=WINDOWS,
                at_least=True,
                clears=False,
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
            clears=False,
        ),
        Check(
            what="p95s differ",
            measured=max(p95s) - min(p95s),
            limit=max(rules.v13_agreement * min(p95s), rules.v13_tolerance_ms),
            unit="ms",
            clears=False,
        ),
    ]


def trend(found: Sequence[Window], rules: Thresholds) -> Check:
    """How far the p95s go up or down from the first window to the last; that they are too few to
    say so, if so.

    Along Tukey's resistant line (Exploratory Data Analysis, 1977), from the median of the first
    third to that of the last: one window in which the machine was slow is no drift, but it tilts a
    line of least squares. A third that is slow for the most part counts.
    """
    p95s = [window.p95_ms for window in found if window.p95_ms is not None]
    if len(p95s) < WINDOWS:
        return Check(
            what="windows in steady", measured=len(p95s), limit=WINDOWS, at_least=True, clears=False
        )
    third = len(p95s) // 3
    first, last = statistics.median(p95s[:third]), statistics.median(p95s[-third:])
    drift = abs(last - first) * (len(p95s) - 1) / (len(p95s) - third)
    limit = max(rules.v13_trend * statistics.median(p95s), rules.v13_tolerance_ms)
    return Check(what="p95 drifts by", measured=drift, limit=limit, unit="ms", clears=False)
