"""The verdict on one run."""

from collections.abc import Sequence
from typing import Literal

import msgspec

from loadlab.record.read import Log
from loadlab.record.schema import Ended, Run
from loadlab.verdict.check import Check
from loadlab.verdict.figures import Figures, figures
from loadlab.verdict.objective import BROKEN_OFF, GONE, functional_failure, judge_objective
from loadlab.verdict.rules import Finding, in_words, judge_rules, remedies

Outcome = Literal["PASS", "FAIL", "INVALID", "ERROR"]
EXIT_CODES: dict[Outcome, int] = {"PASS": 0, "FAIL": 1, "INVALID": 2, "ERROR": 4}
"""3 is wrong usage: then there is no run."""


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


def _outcome(log: Log, findings: list[Finding], objective: list[Check]) -> tuple[Outcome, str]:
    """Judge functional failures first, then how the run ended, then the figures.

    A server that is gone needs no stopwatch: only that it was in the limits that it was meant to be
    in.
    """
    ended, missed = log.run.ended, [check for check in objective if not check.holds]
    broken = [finding for finding in findings if not finding.holds]
    if ended is not None and ended.kind == "infrastructure":
        return "ERROR", ended.sentence or "The run could not begin."
    if wrong := functional_failure(log, findings):
        return "FAIL", _not_right(wrong, missed, broken)
    if ended is None:
        return "INVALID", "The run was killed before its end. What to do: run again."
    if ended.kind in BROKEN_OFF:
        reason = (ended.sentence or BROKEN_OFF[ended.kind]).rstrip(".")
        mend = "" if ended.kind == "interrupted" else "mend that, and "
        return "INVALID", f"The run broke off: {reason}. What to do: {mend}run again."
    doubts = [finding for finding in findings if not finding.allows_fail]
    if ended.kind in GONE:
        doubts = [finding for finding in doubts if finding.rule == "V11"]
    if any(check.measured is not None for check in missed) and not doubts:
        return "FAIL", _failed(ended, missed, broken)
    spoilt = [finding for finding in findings if not finding.allows_pass]
    if missed or spoilt:
        needed = (doubts if missed else spoilt) or broken
        # The figures show all broken rules: a smaller number here is explained.
        by = f" that a {'FAIL' if missed else 'PASS'} needs" if len(needed) < len(broken) else ""
        return "INVALID", _invalid(log.run, ended, needed, by)
    return "PASS", _passed(findings, broken)


def _passed(findings: Sequence[Finding], broken: Sequence[Finding]) -> str:
    """With what could not be observed or tested, and what does not hold in spite of the PASS."""
    hidden = [each for each in findings if any(not check.observable for check in each.checks)]
    untested = [each for each in findings if any(check.note for check in each.checks)]
    if not (broken or hidden or untested):
        return "All 17 rules hold, and the objective is met."
    parts = ["The objective is met."]
    if hidden:
        parts.append(
            "Not observable of a server that the lab did not start: its limits, CPU time and "
            f"memory ({_names(hidden)})."
        )
    elif untested:
        parts.append(f"Not tested: {_sentences(untested)}.")
    if broken:
        parts.append(
            f"What does not hold can only have made the figures worse: {_sentences(broken)}."
        )
    return " ".join(parts)


def _not_right(wrong: str, missed: Sequence[Check], broken: Sequence[Finding]) -> str:
    """The failure first; then what it missed, and that broken rules do not excuse it."""
    measured = [check.text for check in missed if check.measured is not None]
    if not measured:
        return wrong
    excuse = f" Rules that do not hold ({_names(broken)}) do not excuse it." if broken else ""
    return f"{wrong} It missed its objective: {'; '.join(measured)}.{excuse}"


def _failed(ended: Ended, missed: Sequence[Check], broken: Sequence[Finding]) -> str:
    """What was missed; what could not be measured any more is only named."""
    measured = [check.text for check in missed if check.measured is not None]
    unknown = [check.what for check in missed if check.measured is None]
    parts = [f"{ended.sentence.rstrip('.')}:"] if ended.sentence else []
    parts.append(f"The server missed its objective: {'; '.join(measured)}.")
    if unknown:
        parts.append(f"Never measured: {', '.join(unknown)}.")
    if ended.kind in GONE:
        parts.append(
            "It was in its limits (V11); the other rules are for the latencies of a server that is "
            "there."
        )
    elif broken:
        spoiled = "; ".join(in_words(finding.rule) for finding in broken)
        parts.append(
            f"The generator and the machine are clear; what would keep this from a PASS: {spoiled}."
        )
    return " ".join(parts)


def _invalid(run: Run, ended: Ended, broken: Sequence[Finding], by: str) -> str:
    """Rules that were measured broken with their values; those of which nothing is known by name;
    and what to do. `by`: which verdict needs these rules, where others are broken, too."""
    measured = [
        finding
        for finding in broken
        if any(check.measured is not None and not check.holds for check in finding.checks)
    ]
    unknown = [finding for finding in broken if finding not in measured]
    parts = [ended.sentence.rstrip(".")] if ended.sentence else []
    verb = "rules are" if len(broken) > 1 else "rule is"
    parts.append(f"The measurement proves nothing: {len(broken)} {verb} broken{by}")
    parts += [finding.sentence for finding in measured]
    if unknown:
        need = "needs" if len(unknown) == 1 else "need"
        parts.append(f"Not recorded is what {_names(unknown)} {need}")
    # What a run that was given up could not record any more is nothing to mend.
    cured = measured if ended.kind == "aborted" and measured else broken
    return f"{'. '.join(parts)}. {remedies(cured, run.engine)}"


def _names(findings: Sequence[Finding]) -> str:
    return ", ".join(f"{finding.rule} {finding.title}" for finding in findings)


def _sentences(findings: Sequence[Finding]) -> str:
    return ". ".join(finding.sentence for finding in findings)
