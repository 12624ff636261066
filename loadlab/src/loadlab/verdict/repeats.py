"""Several runs of one thing: the verdict on all of them, and the sentence that may be claimed when
they hold."""

import ipaddress
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import msgspec

from loadlab.record.schema import Run
from loadlab.verdict.figures import Figures
from loadlab.verdict.judge import EXIT_CODES, Outcome, Verdict

ENOUGH = 3
"""Repeats that a claim needs."""


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
        f"{_used(run, found)} "
        f"Generator ({run.engine}, {way(run)}): busiest process {mid('generator_cpu'):.0%} of a "
        "core, "
        f"loop lag p99 {mid('loop_lag_p99_ms'):.2g} ms. "
        f"Runs: {', '.join(each.run.id for each in judged)}; seeds "
        f"{', '.join(str(each.run.seed) for each in judged)}."
    )


def _used(run: Run, found: Sequence[Figures]) -> str:
    """What the server used of its limits, where the lab could read it."""
    if not run.observed:
        return "CPU time, throttling and memory of the server not observable."
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
