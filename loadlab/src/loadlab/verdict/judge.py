"""The verdict on one run; the verdict on several runs of one thing, and the sentence that may be
claimed when they hold.
"""

import ipaddress
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple

import msgspec

from loadlab.record.schema import Ended, Run
from loadlab.record.store import Log
from loadlab.verdict.check import Check
from loadlab.verdict.figures import Figures, figures
from loadlab.verdict.objective import BROKEN_OFF, GONE, functional_failure, judge_objective
from loadlab.verdict.rules import Finding, in_words, judge_rules, remedies

Outcome = Literal["PASS", "FAIL", "INVALID", "ERROR"]
EXIT_CODES: dict[Outcome, int] = {"PASS": 0, "FAIL": 1, "INVALID": 2, "ERROR": 4}
"""3 is wrong usage: then there is no run."""
ENOUGH = 3
"""Repeats that a claim needs."""


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
    hidden = [each for each in findings if each.unseen]
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


class Judged(NamedTuple):
    """A run and its verdict."""

    run: Run
    verdict: Verdict


@dataclass(frozen=True)
class SetVerdict:
    """What the repeats prove together."""

    outcome: Outcome
    sentence: str
    claim: str = ""
    """Empty: nothing may be claimed."""

    @property
    def exit_code(self) -> int:
        """Of the process that made the runs."""
        return EXIT_CODES[self.outcome]


def combine(judged: Sequence[Judged]) -> SetVerdict:
    """One FAIL refutes the claim, whatever the others say; a run that proves nothing proves nothing
    for the set; nothing is left out.

    Raises:
        ValueError: no runs.
    """
    if not judged:
        raise ValueError("there are no runs to judge: at least one is needed")
    outcomes = [each.verdict.outcome for each in judged]
    wanted = judged[0].run.repeats
    counted = ", ".join(f"{outcomes.count(kind)} {kind}" for kind in EXIT_CODES if kind in outcomes)
    for kind in ("FAIL", "ERROR", "INVALID"):
        if kind in outcomes:
            return SetVerdict(kind, f"Not verified: {counted} of {wanted}.")
    if len(judged) < wanted:
        return SetVerdict("INVALID", f"Not verified: {counted}, but {wanted} were asked for.")
    if len({_kind(each.run) for each in judged}) > 1:
        differ = "the runs differ in commit, tier, scenario, machine, backend or engine"
        return SetVerdict("INVALID", f"Not verified: {differ}.")
    claim = claim_of(judged) if len(judged) >= ENOUGH else ""
    short = "" if claim else f" A claim needs {ENOUGH} repeats."
    return SetVerdict("PASS", f"{len(judged)} of {wanted} runs valid and passing.{short}", claim)


def _kind(run: Run) -> tuple[str, ...]:
    """What may not differ within a set: seeds and times may, and the number of different bodies,
    which are drawn by the seed."""
    machine, scenario = run.fingerprint, str(msgspec.structs.replace(run.scenario, bodies=0))
    of_machine = (machine.commit, machine.cpu, machine.kernel)
    return (*of_machine, run.tier.name, scenario, run.backend, run.engine)


def claim_of(judged: Sequence[Judged]) -> str:
    """The claim's text, from runs that all pass. Figures are medians over the repeats; ranges are
    smallest and largest."""
    run, found = judged[0].run, [each.verdict.figures for each in judged]
    mid = partial(_median, found)
    total = sum(each.judged or each.requests for each in found)  # older verdicts have no `judged`
    p99s = [each.p99_ms for each in found if each.p99_ms is not None]
    latencies = " / ".join(f"{mid(each):.3g}" for each in ("p50_ms", "p95_ms", "p99_ms", "max_ms"))
    return (
        f"Verified on {run.started_at[:10]}, commit {run.fingerprint.code}, "
        f"{_machine([each.run for each in judged])}: "
        f"{_workload(run)}, {mid('steady_s'):.0f} s steady, against {_server(run)}: "
        f"{len(judged)} of {run.repeats} runs valid and passing; {mid('achieved_hz'):,.0f} "
        "requests a second, "
        f"{sum(each.errors for each in found)} errors in {total:,} requests (upper bound "
        f"{3 / total:.1e}), "
        f"p50/p95/p99/max = {latencies} ms (p99 of the repeats: "
        f"{min(p99s):.3g}–{max(p99s):.3g} ms), "
        f"{_used(judged[0], found)} "
        f"Generator ({run.engine}, {way(run)}): busiest process {mid('generator_cpu'):.0%} of a "
        "core, "
        f"loop lag p99 {mid('loop_lag_p99_ms'):.2g} ms. "
        f"Runs: {', '.join(each.run.id for each in judged)}; seeds "
        f"{', '.join(str(each.run.seed) for each in judged)}."
    )


def _used(first: Judged, found: Sequence[Figures]) -> str:
    """What the server used of its limits, where the lab could read it; else also the rules that
    need it."""
    if not first.run.observed:
        rules = [each.rule for each in first.verdict.findings if each.unseen]
        needed = f", nor what rules {', '.join(rules)} need of them" if rules else ""
        return f"CPU time, throttling and memory of the server not observable{needed}."
    mid = partial(_median, found)
    of_null = mid("cpu_of_null")
    times = "" if math.isnan(of_null) else f", {of_null:.3g} × the null server's"
    per_request = f" ({mid('cpu_us'):.1f} µs a request{times})" if times else ""
    return (
        f"CPU used {mid('cpu_cores'):.2f}{_of(mid('quota_cores'), '.3g')} cores{per_request}, "
        f"throttled in {mid('throttled'):.1%} of periods, "
        f"memory peak {mid('memory_peak_mib'):.0f}{_of(mid('memory_limit_mib'), '.0f')} MiB."
    )


def _machine(runs: Sequence[Run]) -> str:
    """The machine, and how fast it was when these runs began."""
    machine = runs[0].fingerprint
    scores = [run.calibration.score for run in runs if run.calibration]
    score = f", calibration score {statistics.median(scores):.3g}" if scores else ""
    return f"{machine.hardware}, Linux {machine.kernel}, cgroups v{machine.cgroup_version}{score}"


def _workload(run: Run) -> str:
    asked = run.scenario
    think = f"open model, {asked.rate_hz or 0:,.0f} arrivals a second"
    if asked.think_s:
        think = f"think time U({asked.think_s[0]:g},{asked.think_s[1]:g}) s"
    return (
        f"{asked.users:,} concurrent users (one keep-alive connection each, {think}), ramped at "
        f"{asked.spawn_rate_hz:g} users/s ({asked.ramp})"
    )


def _server(run: Run) -> str:
    if not run.observed:
        return f"a server at {run.target} with limits that the lab did not set and cannot see"
    tier, cpus, memory = run.tier, "no CPU limit", "no memory limit"
    if tier.limits.cpus is not None:
        cpus = f"{tier.limits.cpus:g} CPU (quota {tier.limits.cpus * 100:g} ms per 100 ms)"
    if tier.limits.memory_bytes is not None:
        memory = f"{tier.limits.memory_bytes / 2**20:.0f} MiB"
    pinned = f", on CPU {','.join(map(str, tier.cpus))}," if tier.cpus else ""
    image = run.details.get("image", "plain processes")
    return (
        f"{tier.replicas} × halfcore ({image}, {run.backend}) limited to {cpus}{pinned} and "
        f"{memory}"
    )


def way(run: Run) -> str:
    """How the generator reaches the server; of several replicas the first."""
    host = run.target.partition(",")[0].rpartition(":")[0].strip("[]")
    try:
        loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = False
    return "on the same machine over loopback" if loopback else f"reaching it at {host}"


def _median(found: Sequence[Figures], name: str) -> float:
    """Of a field of runs that pass: what the rules need was recorded, so only a limit that was not
    set, or what older runs did not measure, can be missing (nan)."""
    known = [value for each in found if (value := getattr(each, name)) is not None]
    return statistics.median(known) if known else math.nan


def _of(limit: float, form: str) -> str:
    return "" if math.isnan(limit) else f" of {limit:{form}}"
