"""V1–V4 and V10: did the generator do what it was ordered to do, and on time?"""

import math

from loadlab.record.read import Log
from loadlab.record.schema import PhaseName, Sample
from loadlab.verdict.check import Check
from loadlab.verdict.criteria import Thresholds
from loadlab.verdict.figures import (
    busiest_second,
    done,
    grown,
    mean_cores,
    mean_ms,
    per_second,
    quantile_ms,
    worst_generator,
)


def under_load(log: Log) -> tuple[PhaseName, ...]:
    """The steady phase; of a run that never reached it, ramp and settling."""
    return ("steady",) if log.of("users", "steady") else ("ramp", "settle")


def users(log: Log, rules: Thresholds) -> list[Check]:
    """V1: all alive in every second of steady, spawned on time, no errors of their code."""
    alive = [line.users or 0 for line in per_second(log.of("users", "steady"))]
    lines = log.of("users")
    return [
        Check(
            what="users alive in every second",
            measured=min(alive, default=None),
            limit=log.run.scenario.users,
            at_least=True,
            fail_needs=False,
        ),
        Check(
            what="ramp behind its plan",
            measured=_behind_s(log),
            limit=rules.v1_ramp_behind_s,
            unit="s",
        ),
        Check(
            what="errors in user code",
            measured=sum(line.user_errors for line in lines) if lines else None,
            limit=0,
        ),
    ]


def _behind_s(log: Log) -> float | None:
    """How late users appeared at worst, seconds, until the last was there or the ramp over."""
    ramp, rate = log.phase("ramp"), log.run.scenario.spawn_rate_hz
    seconds = per_second(log.of("users", "ramp"))
    if ramp is None or not seconds:
        return None
    behind = 0.0
    for line in seconds:
        alive = line.users or 0
        behind = max(behind, line.t + 1 - ramp.start_s - alive / rate)
        if alive >= log.run.scenario.users:
            break
    return behind


def cpu(log: Log, rules: Thresholds) -> list[Check]:
    """V2: every generator process, on average and in its busiest second; none stopped by a quota of
    its own."""
    samples = log.sampled(*under_load(log))
    return [
        Check(
            what="busiest process",
            measured=worst_generator(log, samples, mean_cores),
            limit=rules.v2_cpu_mean,
            unit="share",
        ),
        Check(
            what="in its busiest second",
            measured=worst_generator(log, samples, busiest_second),
            limit=rules.v2_cpu_second,
            unit="share",
        ),
        Check(
            what="throttled periods of the generator", measured=grown(samples, _throttled), limit=0
        ),
    ]


def loop_lag(log: Log, rules: Thresholds) -> list[Check]:
    """V3: how late the generator's loops were."""
    lag = log.histogram("users", "loop_lag", *under_load(log))
    ramp = log.histogram("users", "loop_lag", "ramp")
    return [
        Check(what="p99", measured=quantile_ms(lag, 0.99), limit=rules.v3_lag_p99_ms, unit="ms"),
        Check(
            what="max",
            measured=max(lag) / 1000 if lag else None,
            limit=rules.v3_lag_max_ms,
            unit="ms",
            pass_needs=False,  # one late look adds to the latencies that it sees
        ),
        Check(
            what="p99 in the ramp",
            measured=quantile_ms(ramp, 0.99),
            limit=rules.v3_ramp_lag_p99_ms,
            unit="ms",
            pass_needs=False,
        ),
    ]


def rates(log: Log, rules: Thresholds) -> list[Check]:
    """V4: the interactive law (closed model) or the arrivals asked for (open model), and the
    schedule kept."""
    finished, lasted = done(log.of("users", "steady")), log.lasted_s("steady")
    expected = _expected_hz(log)
    away = abs(finished / lasted / expected - 1) if finished and lasted and expected else None
    lag = log.histogram("users", "lag", *under_load(log))
    chance = 3 / math.sqrt(finished) if finished else 0.0
    return [
        Check(
            what="rate away from the expected",
            measured=away,
            limit=max(rules.v4_rate, chance),
            unit="share",
            fail_needs=False,
        ),
        Check(
            what="schedule lag p99",
            measured=quantile_ms(lag, 0.99),
            limit=rules.v4_lag_p99_ms,
            unit="ms",
        ),
    ]


def _expected_hz(log: Log) -> float | None:
    scenario = log.run.scenario
    if scenario.think_s is None:
        return scenario.rate_hz
    response_ms = mean_ms(
        log.histogram("users", "response", "steady") + log.histogram("users", "failed", "steady")
    )
    if response_ms is None:
        return None
    return scenario.users / (math.fsum(scenario.think_s) / 2 + response_ms / 1000)


def workers(log: Log, _: Thresholds) -> list[Check]:
    """V10: every worker reported, none was lost in between."""
    found = log.run.workers
    return [
        Check(
            what="reports missing",
            measured=found.expected - found.reported if found else None,
            limit=0,
        ),
        Check(what="workers lost", measured=found.missing if found else None, limit=0),
        Check(
            what="heartbeats missed", measured=found.missed_heartbeats if found else None, limit=0
        ),
    ]


def _throttled(sample: Sample) -> float | None:
    return sample.generator_throttled_periods
