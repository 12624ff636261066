"""The verdict on one run, and on a set of repeats."""

from pathlib import Path
from typing import Literal

import msgspec

from loadlab.record.read import Log
from loadlab.record.schema import Ended, EndKind
from loadlab.verdict.check import Check
from loadlab.verdict.figures import Figures, figures
from loadlab.verdict.function import BROKEN_OFF, functional_failure
from loadlab.verdict.objective import judge_objective
from loadlab.verdict.rules import Finding, judge_rules

VERDICT_FILE = "verdict.json"
Outcome = Literal["PASS", "FAIL", "INVALID", "ERROR"]
EXIT_CODES: dict[Outcome, int] = {"PASS": 0, "FAIL": 1, "INVALID": 2, "ERROR": 4}
"""3 is wrong usage: then there is no run."""

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
    """Judge functional failures first, then how the run ended, then the figures."""
    ended = log.run.ended
    missed = [check for check in objective if not check.holds]
    broken = [finding for finding in findings if not finding.holds]
    if ended is not None and ended.kind == "infrastructure":
        return "ERROR", ended.sentence or "The run could not begin."
    if wrong := functional_failure(log, findings):
        return "FAIL", _not_right(wrong, missed, broken)
    if ended is None:
        return "INVALID", "The run was killed before its end."
    if ended.kind in BROKEN_OFF:
        return "INVALID", f"The run broke off: {ended.sentence or BROKEN_OFF[ended.kind]}."
    if any(check.measured is not None for check in missed) and not _doubts(ended, findings):
        return "FAIL", _failed(ended, missed, broken)
    if missed or any(not finding.allows_pass for finding in findings):
        return "INVALID", _invalid(ended.sentence, missed, broken)
    return "PASS", _passed(findings, broken)


def _doubts(ended: Ended, findings: list[Finding]) -> list[Finding]:
    """The rules that keep a FAIL from being the server's. A server that is gone needs no stopwatch:
    only that it was in the limits that it was meant to be in."""
    return [
        finding
        for finding in findings
        if not finding.allows_fail and (ended.kind not in _GONE or finding.rule == "V11")
    ]


def _passed(findings: list[Finding], broken: list[Finding]) -> str:
    hidden = [
        f"{finding.rule} {finding.title}"
        for finding in findings
        if any(not check.observable for check in finding.checks)
    ]
    if not broken and not hidden:
        return "All 17 rules hold, and the objective is met."
    parts = ["The objective is met."]
    if hidden:
        parts.append(
            "Not observable of a server that the lab did not start: its limits, CPU time and "
            f"memory ({', '.join(hidden)})."
        )
    if broken:
        listed = ". ".join(finding.sentence for finding in broken)
        parts.append(f"What does not hold can only have made the figures worse: {listed}.")
    return " ".join(parts)


def _not_right(wrong: str, missed: list[Check], broken: list[Finding]) -> str:
    """The failure first; then what it missed, and that broken rules do not excuse it."""
    parts = [wrong]
    if measured := [check.text for check in missed if check.measured is not None]:
        parts.append(f"It missed its objective: {'; '.join(measured)}.")
    if measured and broken:
        names = ", ".join(f"{finding.rule} {finding.title}" for finding in broken)
        parts.append(f"Rules that do not hold ({names}) do not excuse it.")
    return " ".join(parts)


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


def _invalid(reason: str, missed: list[Check], broken: list[Finding]) -> str:
    """Rules that were measured broken with their values; those of which nothing is known by name;
    and whether a PASS or a FAIL was in question."""
    needed = "allows_fail" if missed else "allows_pass"
    broken = [finding for finding in broken if not getattr(finding, needed)] or broken
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
