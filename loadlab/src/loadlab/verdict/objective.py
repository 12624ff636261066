"""Was the server good enough? Every line of the objective as a check, and failures of function:
what the server did wrong, whatever the machine and the generator did.

Noise makes answers late. It does not make them wrong, and it does not turn a 200 into a 500. So a
FAIL for failures of function needs fewer rules than a FAIL for latencies.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import chain

from loadlab.record.histogram import merge
from loadlab.record.schema import EndKind, PhaseName
from loadlab.record.store import Log
from loadlab.verdict.check import Check, Unit, observed
from loadlab.verdict.figures import (
    Figures,
    answered,
    by_second,
    done,
    failed,
    failures,
    judged_phases,
    known,
    of_server,
    quantile_ms,
    response_ms,
    under_load,
)
from loadlab.verdict.rules import Finding

GONE: tuple[EndKind, ...] = ("server_died", "server_hung")
BROKEN_OFF: dict[EndKind, str] = {
    "interrupted": "it was interrupted",
    "generator_broke": "the generator broke",
    "disk_full": "the record could not be written",
}
"""Ends that are not the server's doing."""
TOO_SLOW_TIMES, TOO_SLOW_S = 10, 10
"""A server whose p95 is so many times the objective's for so many seconds will not meet it."""
_CALM_S = 3
"""Seconds in a row that make a recovery."""
_REFUSALS = ("status_429", "status_503")
"""A server refuses by its load, and so by its limits and the generator's: not certain."""
_ABOUT_CONNECTIONS = ("V1", "V9", "V10", "V11")
"""The rules that may explain resets, timeouts and refusals: users whose code failed, ports and
files that ran out, a lost worker, other limits than the tier's."""
_WORDS = {
    "wrong": "wrong answers",
    "status": "error statuses",
    "reset": "connections broken off",
    "timeout": "requests without an answer in time",
    "unanswered": "requests never answered",
    "connect": "connections refused",
}
_KEEP = (
    "If it closes connections that are idle between two requests of a user, let it keep them "
    "longer, as `uvicorn --timeout-keep-alive 75` does (5 s otherwise)."
)
"""What to do about resets that have the most frequent reason: users pause for longer than common
servers keep a connection."""


def judge_objective(log: Log, found: Figures) -> list[Check]:
    """Every line that was asked for, the server's survival first."""
    checks = [*_survival(log), *_errors(log, found), *_latencies(log, found), *_overload(log)]
    return observed(checks, log.run.observed)


def _survival(log: Log) -> list[Check]:
    ended = log.run.ended
    lost = 1 if ended and ended.kind in GONE else 0
    # Counters of the whole run; they begin at 0, for the server is fresh.
    restarts, kills = (
        max((value for _, value in known(log.samples, of_server(read))), default=None)
        for read in (lambda server: server.restarts, lambda server: server.oom_kills)
    )
    ends = lost + restarts if restarts is not None else lost or None
    return [
        Check("ends, hangs or restarts of the server", ends, 0, of_server=not lost),
        Check("kills for want of memory", kills, 0, of_server=True),
    ]


def _errors(log: Log, found: Figures) -> list[Check]:
    total, allowed = found.judged, log.run.criteria.objective.errors
    wrong = sum(count for kind, count in found.failures.items() if kind.startswith("wrong"))
    share = found.errors / total if total else None
    return [
        Check("errors in ramp and steady", share, allowed, "share"),
        Check("wrong answers", wrong if total else None, 0),
    ]


def _latencies(log: Log, found: Figures) -> list[Check]:
    asked = log.run.criteria.objective
    slow = f"windows whose p99 is above {asked.p99_ms or 0:g} ms"
    rows: list[tuple[str, float | None, float | None, Unit]] = [
        ("p50", found.p50_ms, asked.p50_ms, "ms"),
        ("p95", found.p95_ms, asked.p95_ms, "ms"),
        ("p99", found.p99_ms, asked.p99_ms, "ms"),
        ("max", found.max_ms, asked.max_ms, "ms"),
        (slow, _slow_windows(log, asked.p99_ms), asked.slow_windows, "share"),
        ("p99 in the ramp", found.ramp_p99_ms, asked.ramp_p99_ms, "ms"),
    ]
    lines = [
        Check(what, measured, limit, unit)
        for what, measured, limit, unit in rows
        if limit is not None
    ]
    return [*lines, *_given_up(log)]


def _given_up(log: Log) -> list[Check]:
    """Of a run that was stopped before its steady phase because the server was too slow: what it
    was stopped for. The ramp may have been fast, or too short for an answer."""
    ended, limit_ms = log.run.ended, log.run.criteria.objective.p95_ms
    phases = judged_phases(log)
    if limit_ms is None or ended is None or ended.kind != "aborted" or phases == ("steady",):
        return []
    last = list(by_second(log.of("users", *phases)).values())[-TOO_SLOW_S:]
    p95 = response_ms(chain.from_iterable(last), 0.95)
    if p95 is None or p95 <= TOO_SLOW_TIMES * limit_ms:
        return []
    return [Check(f"p95 of its last {TOO_SLOW_S} s", p95, limit_ms, "ms")]


def _slow_windows(log: Log, limit_ms: float | None) -> float | None:
    """Share of windows whose own p99 is above the limit; a window is as many seconds as give enough
    answers for a p99.

    A stall of 300 ms every 10 s hides below a p99 of 250 ms over the whole run; it does not hide
    from the seconds that it hits.
    """
    if limit_ms is None:
        return None
    enough, slow, count, gathered = log.run.criteria.rules.v12_samples, 0, 0, merge([])
    for lines in by_second(log.of("users", "steady")).values():
        gathered += merge(line.response for line in lines)
        if gathered.total() >= enough:
            count += 1
            slow += (quantile_ms(gathered, 0.99) or 0.0) > limit_ms
            gathered.clear()
    if not count and gathered:  # too few for one: V12 says so
        return float((quantile_ms(gathered, 0.99) or 0.0) > limit_ms)
    return slow / count if count else None


def _overload(log: Log) -> list[Check]:
    asked, checks = log.run.criteria.objective, []
    if asked.overload_goodput is not None:
        usual, under = _goodput_hz(log, "steady"), _goodput_hz(log, "overload")
        share, limit = (
            under / usual if under is not None and usual else None,
            asked.overload_goodput,
        )
        checks.append(Check("goodput under overload", share, limit, "share", at_least=True))
    if asked.overload_rejection_p99_ms is not None:
        lines = log.of("users", "overload")
        slowest = quantile_ms(log.histogram("users", "failed", "overload"), 0.99)
        refused = 0.0 if lines and not failed(lines) else slowest
        checks.append(Check("refusals' p99", refused, asked.overload_rejection_p99_ms, "ms"))
    if asked.recovery_s is not None:
        checks.append(Check("recovered after", _recovery_s(log), asked.recovery_s, "s"))
    return checks


def _goodput_hz(log: Log, phase: PhaseName) -> float | None:
    lasted = log.lasted_s(phase)
    return answered(log.of("users", phase)) / lasted if lasted else None


def _recovery_s(log: Log) -> float | None:
    """Until three seconds in a row are without failure and below the p95 asked for; None: never."""
    phase, limit_ms = log.phase("recovery"), log.run.criteria.objective.p95_ms
    calm = 0
    for t, lines in by_second(log.of("users", "recovery")).items():
        p95 = response_ms(lines, 0.95)
        slow = p95 is None or (limit_ms is not None and p95 > limit_ms)
        calm = 0 if failed(lines) or slow else calm + 1
        if phase and calm == _CALM_S:
            return max(t + 1 - _CALM_S - phase.start_s, 0.0)
    return None


def functional_failure(log: Log, findings: Sequence[Finding]) -> str:
    """What the server did wrong, as a sentence; empty if it did nothing wrong, or if the generator
    may have caused it."""
    ended = log.run.ended
    if ended is not None and ended.kind == "wrong_answer":
        said = ended.sentence.rstrip(".") or "the answers to golden rows differ"
        return f"The server gives wrong answers before any load: {said}."
    everything, failing = [*log.of("users"), *log.of("witness")], failures(under_load(log))
    if log.run.drain is not None and log.run.drain.unfinished:
        failing["unanswered"] = failing.get("unanswered", 0) + log.run.drain.unfinished
    count = sum(failing.values())
    share = count / max(done(under_load(log)), count) if count else 0.0
    too_many = count > 0 and share > log.run.criteria.objective.errors
    wrong = {kind: n for kind, n in failures(everything).items() if kind.startswith("wrong")}
    certain = Counter({kind: n for kind, n in failing.items() if too_many and _is_certain(kind)})
    if found := certain + _failed_in_turns(log) | Counter(wrong):
        return _sentence(found, done(everything))
    if ended is None or ended.kind in BROKEN_OFF:  # users that are stopped leave requests behind
        return ""
    suspect = {finding.rule for finding in findings if not finding.allows_fail}
    if too_many and suspect.isdisjoint(_ABOUT_CONNECTIONS):
        said = _sentence(failing, done(everything))
        return f"{said} {_KEEP}" if "reset" in failing and ended.kind not in GONE else said
    return ""


def _failed_in_turns(log: Log) -> Counter[str]:
    """Error statuses while the lab looked for a cache, by kind, if they are more than the objective
    allows: new bodies must be answered too."""
    lines = [line for name in ("users", "witness") for line in log.of(name, "pool", "fresh")]
    found = Counter({kind: n for kind, n in failures(lines).items() if _is_certain(kind)})
    allowed = log.run.criteria.objective.errors * done(lines)
    return found if found.total() > allowed else Counter()


def _is_certain(kind: str) -> bool:
    return kind.startswith(("wrong", "status_")) and kind not in _REFUSALS


def _sentence(found: Mapping[str, int], total: int) -> str:
    """The kinds by number, the most frequent first, of how many requests."""
    parts = [
        f"{count:,} {_WORDS.get(kind.partition('_')[0], 'failures')} ({kind})"
        for kind, count in sorted(found.items(), key=lambda item: -item[1])
    ]
    return f"The server does not work right: {', '.join(parts)} of {total:,} requests."
