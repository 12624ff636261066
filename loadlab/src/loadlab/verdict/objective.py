"""Was the server good enough? Every line of the objective as a check."""

from collections.abc import Callable

from loadlab.record.histogram import merge
from loadlab.record.read import Log
from loadlab.record.schema import Sample
from loadlab.verdict.check import Check, Unit, observed
from loadlab.verdict.figures import Figures, answered, done, failed, quantile_ms

_LOST = ("server_died", "server_hung")
_CALM_S = 3
"""Seconds in a row that make a recovery."""


def judge_objective(log: Log, found: Figures) -> list[Check]:
    """Every line that was asked for, the server's survival first."""
    checks = [*_survival(log), *_errors(log, found), *_latencies(log, found), *_overload(log)]
    return observed(checks, log.run.observed)


def _survival(log: Log) -> list[Check]:
    ended = log.run.ended
    lost = 1 if ended and ended.kind in _LOST else 0
    restarts = _counted(log, _restarts)
    return [
        Check(
            what="ends, hangs or restarts of the server",
            measured=lost + restarts if restarts is not None else lost or None,
            limit=0,
            of_server=not lost,
        ),
        Check(
            what="kills for want of memory",
            measured=_counted(log, _oom_kills),
            limit=0,
            of_server=True,
        ),
    ]


def _errors(log: Log, found: Figures) -> list[Check]:
    lines = log.of("users", "ramp", "settle", "steady")
    total = done(lines) + (found.unfinished or 0)
    wrong = sum(count for kind, count in found.failures.items() if kind.startswith("wrong"))
    return [
        Check(
            what="errors in ramp and steady",
            measured=found.errors / total if total else None,
            limit=log.run.criteria.objective.errors,
            unit="share",
        ),
        Check(what="wrong answers", measured=wrong if total else None, limit=0),
    ]


def _latencies(log: Log, found: Figures) -> list[Check]:
    asked = log.run.criteria.objective
    rows: list[tuple[str, float | None, float | None, Unit]] = [
        ("p50", found.p50_ms, asked.p50_ms, "ms"),
        ("p95", found.p95_ms, asked.p95_ms, "ms"),
        ("p99", found.p99_ms, asked.p99_ms, "ms"),
        ("max", found.max_ms, asked.max_ms, "ms"),
        (
            f"windows whose p99 is above {asked.p99_ms or 0:g} ms",
            _slow_windows(log, asked.p99_ms),
            asked.slow_windows,
            "share",
        ),
        ("p99 in the ramp", found.ramp_p99_ms, asked.ramp_p99_ms, "ms"),
    ]
    return [
        Check(what=what, measured=measured, limit=limit, unit=unit)
        for what, measured, limit, unit in rows
        if limit is not None
    ]


def _slow_windows(log: Log, limit_ms: float | None) -> float | None:
    """Share of windows whose own p99 is above the limit; a window is as many seconds as give enough
    answers for a p99.

    A stall of 300 ms every 10 s hides below a p99 of 250 ms over the whole run; it does not hide
    from the seconds that it hits.
    """
    if limit_ms is None:
        return None
    enough, slow, count, gathered = log.run.criteria.rules.v12_samples, 0, 0, merge([])
    by_second: dict[int, list[list[int]]] = {}
    for line in log.of("users", "steady"):
        by_second.setdefault(line.t, []).append(line.response)
    for t in sorted(by_second):
        gathered += merge(by_second[t])
        if gathered.total() >= enough:
            count += 1
            slow += (quantile_ms(gathered, 0.99) or 0.0) > limit_ms
            gathered.clear()
    if not count and gathered:  # too few for one: V12 says so
        return float((quantile_ms(gathered, 0.99) or 0.0) > limit_ms)
    return slow / count if count else None


def _overload(log: Log) -> list[Check]:
    asked, phase = log.run.criteria.objective, log.phase("overload")
    checks = []
    if asked.overload_goodput is not None:
        usual = (
            answered(log.of("users", "steady")) / log.lasted_s("steady")
            if log.lasted_s("steady")
            else None
        )
        under = (
            answered(log.of("users", "overload")) / log.lasted_s("overload")
            if phase and log.lasted_s("overload")
            else None
        )
        measured = under / usual if under is not None and usual else None
        checks.append(
            Check(
                what="goodput under overload",
                measured=measured,
                limit=asked.overload_goodput,
                at_least=True,
                unit="share",
            )
        )
    if asked.overload_rejection_p99_ms is not None:
        lines = log.of("users", "overload")
        refused = (
            0.0
            if lines and not failed(lines)
            else quantile_ms(log.histogram("users", "failed", "overload"), 0.99)
        )
        checks.append(
            Check(
                what="refusals' p99",
                measured=refused,
                limit=asked.overload_rejection_p99_ms,
                unit="ms",
            )
        )
    if asked.recovery_s is not None:
        checks.append(
            Check(
                what="recovered after", measured=_recovery_s(log), limit=asked.recovery_s, unit="s"
            )
        )
    return checks


def _recovery_s(log: Log) -> float | None:
    """Until three seconds in a row are without failure and below the p95 asked for; None: never."""
    phase, limit_ms = log.phase("recovery"), log.run.criteria.objective.p95_ms
    if phase is None:
        return None
    calm = 0
    for t in sorted({line.t for line in log.of("users", "recovery")}):
        lines = [line for line in log.of("users", "recovery") if line.t == t]
        p95 = quantile_ms(merge(line.response for line in lines), 0.95)
        calm = (
            calm + 1
            if not failed(lines) and p95 is not None and (limit_ms is None or p95 <= limit_ms)
            else 0
        )
        if calm == _CALM_S:
            return max(t + 1 - _CALM_S - phase.start_s, 0.0)
    return None


def _counted(log: Log, read: Callable[[Sample], float | None]) -> float | None:
    """A counter of the server over the whole run; it begins at 0, for the server is fresh."""
    known = [value for value in map(read, log.samples) if value is not None]
    return max(known) if known else None


def _restarts(sample: Sample) -> float | None:
    return sample.server.restarts if sample.server else None


def _oom_kills(sample: Sample) -> float | None:
    return sample.server.oom_kills if sample.server else None
