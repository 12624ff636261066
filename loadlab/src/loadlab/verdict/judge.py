"""The verdict on one run, and on a set of repeats."""

from pathlib import Path
from typing import Literal

import msgspec

from loadlab.record.form import Ended, EndKind
from loadlab.record.read import Log
from loadlab.verdict.check import Check
from loadlab.verdict.figures import Figures, figures
from loadlab.verdict.objective import judge_objective
from loadlab.verdict.rules import Finding, judge_rules

VERDICT_FILE = "verdict.json"
Outcome = Literal["PASS", "FAIL", "INVALID", "ERROR"]
EXIT_CODES: dict[Outcome, int] = {"PASS": 0, "FAIL": 1, "INVALID": 2, "ERROR": 4}
"""3 is wrong usage: then there is no run."""

_BROKEN_OFF: dict[EndKind, str] = {
    "interrupted": "it was interrupted",
    "generator_broke": "the generator broke",
    "disk_full": "the record could not be written",
}
_GONE: tuple[EndKind, ...] = ("server_died", "server_hung")


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What a run proves."""

    outcome: Outcome
    sentence: str
    """The reasons, for people."""
    findings: list[Finding]
    objective: list[Check]
    figures: Figures
    missing: list[str]
    """What a whole run has, and this one lacks."""

    @property
    def exit_code(self) -> int:
        """Of the process that made the run."""
        return EXIT_CODES[self.outcome]


def judge(log: Log) -> Verdict:
    """Judge a run from its record alone; the same record gives the same verdict."""
    found = figures(log)
    findings, objective = judge_rules(log), judge_objective(log, found)
    outcome, sentence = _outcome(log, findings, objective)
    return Verdict(
        outcome=outcome,
        sentence=sentence,
        findings=findings,
        objective=objective,
        figures=found,
        missing=log.missing,
    )


def store(verdict: Verdict, folder: Path) -> None:
    """Write the verdict into its run's folder."""
    (folder / VERDICT_FILE).write_bytes(
        msgspec.json.format(msgspec.json.encode(verdict), indent=1) + b"\n"
    )


def _outcome(log: Log, findings: list[Finding], objective: list[Check]) -> tuple[Outcome, str]:
    ended = log.run.ended
    if ended is None:
        return "INVALID", "The run was killed before its end."
    if ended.kind in ("infrastructure", "wrong_answer"):
        return "ERROR", ended.sentence or "The run could not begin."
    if ended.kind in _BROKEN_OFF:
        return "INVALID", f"The run broke off: {ended.sentence or _BROKEN_OFF[ended.kind]}."
    broken, missed = (
        [finding for finding in findings if not finding.holds],
        [check for check in objective if not check.holds],
    )
    # A server that is gone needs no stopwatch: only that it was in the limits that it was meant to
    # be in.
    doubts = [
        finding
        for finding in broken
        if not finding.clears and (ended.kind not in _GONE or finding.rule == "V11")
    ]
    if any(check.measured is not None for check in missed) and not doubts:
        return "FAIL", _failed(ended, missed, broken)
    if broken or missed:
        return "INVALID", _invalid(ended.sentence, broken)
    return "PASS", "All 17 rules hold, and the objective is met."


def _failed(ended: Ended, missed: list[Check], broken: list[Finding]) -> str:
    """What was missed; what could not be measured any more is only named."""
    measured = [check.text for check in missed if check.measured is not None]
    unknown = [check.what for check in missed if check.measured is None]
    sentence = f"{ended.sentence.rstrip('.')}: " if ended.sentence else ""
    sentence += f"The server missed its objective: {'; '.join(measured)}."
    sentence += f" Never measured: {', '.join(unknown)}." if unknown else ""
    if ended.kind in _GONE:
        return (
            f"{sentence} It was in its limits (V11); the other rules are for the latencies of a "
            "server that is there."
        )
    others = (
        " The generator and the machine are clear; "
        f"{', '.join(finding.rule for finding in broken)} would keep this from a PASS."
    )
    return sentence + (others if broken else "")


def _invalid(reason: str, broken: list[Finding]) -> str:
    """Rules that were measured broken with their values; those of which nothing is known by
    name."""
    measured = [
        finding
        for finding in broken
        if any(check.measured is not None and not check.holds for check in finding.checks)
    ]
    unknown = [finding.rule for finding in broken if finding not in measured]
    parts = [reason.rstrip(".")] if reason else []
    parts.append(
        f"The measurement proves nothing: {len(broken)} "
        f"rule{'s are' if len(broken) > 1 else ' is'} broken"
    )
    parts += [finding.sentence for finding in measured]
    parts += (
        [f"Not recorded is what {', '.join(unknown)} need{'s' if len(unknown) == 1 else ''}"]
        if unknown
        else []
    )
    return f"{'. '.join(parts)}."
