"""Several runs of one thing: the verdict on all of them, and the sentence that may be claimed when they hold."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from loadlab.record.form import Run
from loadlab.verdict.figures import Figures
from loadlab.verdict.judge import EXIT_CODES, Outcome, Verdict

ENOUGH = 3
"""Repeats that a claim needs."""


@dataclass(frozen=True)
class Judged:
    """A run and its verdict."""

    run: Run
    verdict: Verdict


@dataclass(frozen=True)
class SetVerdict:
    """What the repeats prove together."""

    outcome: Outcome
    sentence: str
    claim: str
    """Empty: nothing may be claimed."""

    @property
    def exit_code(self) -> int:
        """Of the process that made the runs."""
        return EXIT_CODES[self.outcome]


def combine(judged: Sequence[Judged]) -> SetVerdict:
    """One FAIL refutes the claim, whatever the others say; a run that proves nothing proves nothing for the set; nothing is left out.

    Raises:
        ValueError: no runs.
    """
    if not judged:
        raise ValueError("no runs came, at least one is needed")
    outcomes = [each.verdict.outcome for each in judged]
    wanted = judged[0].run.repeats
    counted = ", ".join(f"{outcomes.count(kind)} {kind}" for kind in EXIT_CODES if kind in outcomes)
    for kind in ("FAIL", "ERROR", "INVALID"):
        if kind in outcomes:
            return SetVerdict(kind, f"Not verified: {counted} of {wanted}.", "")
    if len(judged) < wanted:
        return SetVerdict("INVALID", f"Not verified: {counted}, but {wanted} were asked for.", "")
    if _kinds(judged) > 1:
        return SetVerdict("INVALID", "Not verified: the runs differ in commit, tier, scenario, machine, backend or engine.", "")
    claim = claim_of(judged) if len(judged) >= ENOUGH else ""
    short = "" if claim else f" A claim needs {ENOUGH} repeats."
    return SetVerdict("PASS", f"{len(judged)} of {wanted} runs valid and passing.{short}", claim)


def claim_of(judged: Sequence[Judged]) -> str:
    """The claim's text, from runs that all pass. Figures are medians over the repeats, the ranges smallest and largest."""
    run, found = judged[0].run, [each.verdict.figures for each in judged]
    total = sum(each.requests for each in found)
    bound = f"upper bound {3 / total:.1e}" if total else "no requests"
    p99s = [each.p99_ms for each in found if each.p99_ms is not None]
    return (
        f"Verified on {run.started_at[:10]}, commit {run.fingerprint.commit[:12]}{' with uncommitted changes' if run.fingerprint.dirty else ''}, "
        f"{_machine(run)}: {_workload(run)}, {_median(found, lambda each: each.steady_s):.0f} s steady, against {_server(run)}: "
        f"{len(judged)} of {run.repeats} runs valid and passing; {_median(found, lambda each: each.achieved_hz):,.0f} requests a second, "
        f"{sum(each.errors for each in found)} errors in {total:,} requests ({bound}), "
        f"p50/p95/p99/max = {_latencies(found)} ms (p99 of the repeats: {min(p99s):.3g}–{max(p99s):.3g} ms), "
        f"CPU used {_median(found, lambda each: each.cpu_cores):.2f}{_of(_median(found, lambda each: each.quota_cores), '.3g')} cores, "
        f"throttled in {_median(found, lambda each: each.throttled):.1%} of periods, "
        f"memory peak {_median(found, lambda each: each.memory_peak_mb):.0f}{_of(_median(found, lambda each: each.memory_limit_mb), '.0f')} MB. "
        f"Generator ({run.engine}, on the same machine over loopback): busiest process {_median(found, lambda each: each.generator_cpu):.0%} of a "
        f"core, loop lag p99 {_median(found, lambda each: each.loop_lag_p99_ms):.2g} ms. Runs: {', '.join(each.run.id for each in judged)}; "
        f"seeds {', '.join(str(each.run.seed) for each in judged)}."
    )


def _kinds(judged: Sequence[Judged]) -> int:
    runs = [each.run for each in judged]
    return len({(run.fingerprint.commit, run.fingerprint.cpu, run.fingerprint.kernel, run.tier.name, str(run.scenario), run.backend, run.engine)
                for run in runs})  # fmt: skip


def _machine(run: Run) -> str:
    machine = run.fingerprint
    return f"{machine.cpu}, {machine.cores} cores, {machine.memory_bytes / 1e9:.0f} GB, Linux {machine.kernel}, cgroups v{machine.cgroup_version}"


def _workload(run: Run) -> str:
    asked = run.scenario
    kept = "one keep-alive connection each" if asked.keep_alive else "without keep-alive"
    think = (
        f"think time U({asked.think_s[0]:g},{asked.think_s[1]:g}) s"
        if asked.think_s
        else f"open model, {asked.rate_hz or 0:,.0f} arrivals a second"
    )
    return f"{asked.users:,} concurrent users ({kept}, {think}), ramped at {asked.spawn_rate_hz:g} users/s ({asked.ramp})"


def _server(run: Run) -> str:
    tier = run.tier
    cpus = "no CPU limit" if tier.limits.cpus is None else f"{tier.limits.cpus:g} CPU (quota {tier.limits.cpus * 100:g} ms per 100 ms)"
    pinned = f", on CPU {','.join(map(str, tier.cpus))}" if tier.cpus else ""
    memory = "no memory limit" if tier.limits.memory_bytes is None else f"{tier.limits.memory_bytes / 1e6:.0f} MB"
    image = f"{run.details['image']} " if "image" in run.details else ""
    many = f"{tier.replicas} replicas, each " if tier.replicas > 1 else ""
    return f"{many}{image}limited to {cpus}{pinned} and {memory} ({run.backend})"


def _latencies(found: Sequence[Figures]) -> str:
    each = (lambda one: one.p50_ms, lambda one: one.p95_ms, lambda one: one.p99_ms, lambda one: one.max_ms)
    return " / ".join(f"{_median(found, read):.3g}" for read in each)


def _median(found: Sequence[Figures], read: Callable[[Figures], float | None]) -> float:
    """Of runs that pass: what the rules need was recorded, so only a limit that was not set can be missing."""
    known = [value for value in map(read, found) if value is not None]
    return statistics.median(known) if known else float("nan")


def _of(limit: float, form: str) -> str:
    return "" if limit != limit else f" of {limit:{form}}"
