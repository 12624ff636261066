"""Failures of function: what the server did wrong, whatever the machine and the generator did.

Noise makes answers late. It does not make them wrong, and it does not turn a 200 into a 500. So a
FAIL for these needs fewer rules than a FAIL for latencies.
"""

from collections.abc import Sequence

from loadlab.record.read import Log
from loadlab.record.schema import Ended, EndKind
from loadlab.verdict.figures import done, failures
from loadlab.verdict.rules import Finding

_REFUSALS = ("status_429", "status_503")
"""A server refuses by its load, and so by its limits and the generator's: not certain."""
_ABOUT_CONNECTIONS = ("V1", "V9", "V10", "V11")
"""The rules that may explain resets, timeouts and refusals: users whose code failed, ports and
files that ran out, a lost worker, other limits than the tier's."""
BROKEN_OFF: dict[EndKind, str] = {
    "interrupted": "it was interrupted",
    "generator_broke": "the generator broke",
    "disk_full": "the record could not be written",
}
"""Ends that are not the server's doing."""
_WORDS = {
    "wrong": "wrong answers",
    "status": "error statuses",
    "reset": "connections broken off",
    "timeout": "requests without an answer in time",
    "unanswered": "requests never answered",
    "connect": "connections refused",
}


def functional_failure(log: Log, findings: Sequence[Finding]) -> str:
    """What the server did wrong, as a sentence; empty if it did nothing wrong, or if the generator
    may have caused it."""
    ended = log.run.ended
    if ended is not None and ended.kind == "wrong_answer":
        return f"The server gives wrong answers before any load: {_plain(ended)}."
    wrong = {kind: count for kind, count in _all(log).items() if kind.startswith("wrong")}
    failed = _under_load(log)
    certain = {kind: count for kind, count in failed.items() if _is_certain(kind)}
    if not _too_many(log, sum(failed.values())):
        certain = {}
    if found := wrong | certain:
        return _sentence(found, log)
    if ended is None or ended.kind in BROKEN_OFF:  # users that are stopped leave requests behind
        return ""
    suspect = {finding.rule for finding in findings if not finding.allows_fail}
    if _too_many(log, sum(failed.values())) and suspect.isdisjoint(_ABOUT_CONNECTIONS):
        return _sentence(failed, log)
    return ""


def _all(log: Log) -> dict[str, int]:
    return failures(log.of("users"))


def _under_load(log: Log) -> dict[str, int]:
    found = failures(log.of("users", "ramp", "settle", "steady"))
    if log.run.drain is not None and log.run.drain.unfinished:
        found["unanswered"] = found.get("unanswered", 0) + log.run.drain.unfinished
    return found


def _too_many(log: Log, count: int) -> bool:
    ended = done(log.of("users", "ramp", "settle", "steady"))
    return bool(count) and count / max(ended, count) > log.run.criteria.objective.errors


def _is_certain(kind: str) -> bool:
    return kind.startswith(("wrong", "status_")) and kind not in _REFUSALS


def _sentence(found: dict[str, int], log: Log) -> str:
    """The kinds by number, the most frequent first, of how many requests."""
    total = done(log.of("users"))
    parts = [
        f"{count:,} {_WORDS.get(kind.partition('_')[0], 'failures')} ({kind})"
        for kind, count in sorted(found.items(), key=lambda item: -item[1])
    ]
    return f"The server does not work right: {', '.join(parts)} of {total:,} requests."


def _plain(ended: Ended) -> str:
    return ended.sentence.rstrip(".") or "the answers to golden rows differ"
