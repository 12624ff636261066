"""V1–V4, V10, V12, V14, V16, V17: did the generator do what it was ordered to do, on time, and are
the answers enough, looked at, and seen by others too?"""

import math

from loadlab.record.criteria import Thresholds
from loadlab.record.read import Log
from loadlab.record.schema import LOAD
from loadlab.verdict.check import Check
from loadlab.verdict.figures import (
    UNDER_LOAD,
    alive,
    answered,
    busiest_second,
    done,
    grown,
    judged_phases,
    quantile_ms,
    rate,
    worst_generator,
)

_WITNESSED = 130
"""Answers that a p95 needs (MLPerf's bound)."""


def users(log: Log, rules: Thresholds) -> list[Check]:
    """V1: all alive in every second of steady, spawned on time, no errors of their code."""
    lines, asked = log.of("users"), log.run.scenario.users
    least = min(alive(log.of("users", "steady")).values(), default=None)
    errors = sum(line.user_errors for line in lines) if lines else None
    return [
        Check("users alive in every second", least, asked, at_least=True, fail_needs=False),
        Check("ramp behind its plan", _behind_s(log), rules.v1_ramp_behind_s, "s"),
        Check("errors in user code", errors, 0),
    ]


def _behind_s(log: Log) -> float | None:
    """How late users appeared at worst, seconds, until the last was there or the ramp over."""
    ramp, asked = log.phase("ramp"), log.run.scenario
    seconds, behind = alive(log.of("users", "ramp")), 0.0
    if ramp is None or not seconds:
        return None
    for t, count in seconds.items():
        behind = max(behind, t + 1 - ramp.start_s - count / asked.spawn_rate_hz)
        if count >= asked.users:
            break
    return behind


def cpu(log: Log, rules: Thresholds) -> list[Check]:
    """V2: every generator process, on average and in its busiest second; none stopped by a quota of
    its own."""
    samples = log.sampled(*judged_phases(log))
    mean, second = (worst_generator(log, samples, each) for each in (rate, busiest_second))
    throttled = grown(samples, lambda sample: sample.generator_throttled_periods)
    return [
        Check("busiest process", mean, rules.v2_cpu_mean, "share"),
        Check("in its busiest second", second, rules.v2_cpu_second, "share"),
        Check("throttled periods of the generator", throttled, 0),
    ]


def loop_lag(log: Log, rules: Thresholds) -> list[Check]:
    """V3: how late the generator's loops were."""
    lag = log.histogram("users", "loop_lag", *judged_phases(log))
    ramp = quantile_ms(log.histogram("users", "loop_lag", "ramp"), 0.99)
    most = max(lag) / 1000 if lag else None
    return [
        *_late(log, "p99", quantile_ms(lag, 0.99), rules.v3_lag_p99_ms, rules.v3_lag_share),
        Check("max", most, rules.v3_lag_max_ms, "ms", pass_needs=False),
        Check("p99 in the ramp", ramp, rules.v3_ramp_lag_p99_ms, "ms", pass_needs=False),
    ]


def rates(log: Log, rules: Thresholds) -> list[Check]:
    """V4: the interactive law (closed model) or the arrivals asked for (open model), and the
    schedule kept."""
    finished, lasted = done(log.of("users", "steady")), log.lasted_s("steady")
    expected = _expected_hz(log)
    away = abs(finished / lasted / expected - 1) if finished and lasted and expected else None
    allowed = max(rules.v4_rate, 3 / math.sqrt(finished) if finished else 0.0)
    lag = quantile_ms(log.histogram("users", "lag", *judged_phases(log)), 0.99)
    return [
        Check("rate away from the expected", away, allowed, "share", fail_needs=False),
        *_late(log, "schedule lag p99", lag, rules.v4_lag_p99_ms, rules.v4_lag_share),
    ]


def _late(
    log: Log, what: str, lag_ms: float | None, most_ms: float, most_share: float | None
) -> list[Check]:
    """How late a generator may be. A FAIL needs one that is on time. A PASS only needs one whose
    lag is small against the objective: response times begin when a request was due, so the lag is
    part of them."""
    wanted_ms = log.run.criteria.objective.p99_ms
    if wanted_ms is None or most_share is None:
        return [Check(what, lag_ms, most_ms, "ms")]
    share = None if lag_ms is None else lag_ms / wanted_ms
    relative = f"{what} as a share of the objective's p99"
    return [
        Check(what, lag_ms, most_ms, "ms", pass_needs=False),
        Check(relative, share, most_share, "share", fail_needs=False),
    ]


def _expected_hz(log: Log) -> float | None:
    """Of the requests of all users, by the mean of the buckets' lower edges."""
    scenario = log.run.scenario
    if scenario.think_s is None:
        return scenario.rate_hz
    both = [log.histogram("users", kind, "steady") for kind in ("response", "failed")]
    total = both[0].total() + both[1].total()
    if not total:
        return None
    waited_us = sum(value * count for each in both for value, count in each.items())
    return scenario.users / (math.fsum(scenario.think_s) / 2 + waited_us / total / 1e6)


def workers(log: Log, _: Thresholds) -> list[Check]:
    """V10: every worker reported, none was lost in between."""
    found = log.run.workers
    silent = lost = missed = None
    if found is not None:
        silent, lost = found.expected - found.reported, found.missing
        missed = found.missed_heartbeats
    return [
        Check("reports missing", silent, 0),
        Check("workers lost", lost, 0),
        Check("heartbeats missed", missed, 0),
    ]


def samples(log: Log, rules: Thresholds) -> list[Check]:
    """V12: right answers enough for a p99."""
    right = answered(log.of("users", "steady"))
    return [Check("right answers", right, rules.v12_samples, at_least=True, fail_needs=False)]


def checked(log: Log, rules: Thresholds) -> list[Check]:
    """V14: every request has an end that was looked at, and every answer that counts was compared
    whole with the right one."""
    lines, counted = log.of("users", *LOAD), log.of("users", *UNDER_LOAD)
    intended, drain = sum(line.intended for line in lines), log.run.drain
    lost = None if drain is None else abs(intended - done(lines) - drain.unfinished)
    compared, right = sum(line.deep_checked for line in counted), answered(counted)
    share = compared / right if right else None
    return [
        Check("requests without a known end", lost, 0, fail_needs=False),
        Check("answers compared", share, rules.v14_deep, "share", at_least=True, fail_needs=False),
    ]


def witness(log: Log, rules: Thresholds) -> list[Check]:
    """V16: the witness's p50 and p95 against the users'.

    A PASS needs this only where the witness was the slower one: then the generator may report too
    little. A FAIL needs it only where the users were the slower ones and the witness saw the
    objective met: then the generator may have caused what it reports as latency. If the witness
    waited even longer, or too long by the objective, the generator is not at fault. Both see
    different mixtures where latency swings: users who wait ask less often, the witness always at
    the same rate. In a run that was given up before its steady phase there is nothing to compare.
    """
    phases, asked = judged_phases(log), log.run.criteria.objective
    whole = phases == ("steady",)
    mine, theirs = (log.histogram(name, "response", *phases) for name in ("witness", "users"))
    count = mine.total() if log.of("witness") else None
    checks = [
        Check("answers to the witness", count, _WITNESSED, at_least=True, fail_needs=whole),
    ]
    for name, q, share, tolerance_ms, allowed_ms in (
        ("p50", 0.5, rules.v16_p50, rules.v16_p50_tolerance_ms, asked.p50_ms),
        ("p95", 0.95, rules.v16_p95, rules.v16_p95_tolerance_ms, asked.p95_ms),
    ):
        seen, reported = quantile_ms(mine, q), quantile_ms(theirs, q)
        limit = max(share * (reported or 0.0), tolerance_ms)
        apart, slower, faster = None, True, True
        if seen is not None and reported is not None:
            apart, slower = abs(seen - reported), seen > reported
            faster = not slower and (allowed_ms is None or seen <= allowed_ms)
        fail_needs = whole and faster
        checks.append(
            Check(f"{name} apart", apart, limit, "ms", pass_needs=slower, fail_needs=fail_needs)
        )
    return checks


def floor(log: Log, rules: Thresholds) -> list[Check]:
    """V17: the objective's p99 over the null server's."""
    lowest = quantile_ms(log.histogram("floor", "response"), 0.99)
    wanted = log.run.criteria.objective.p99_ms
    ratio = wanted / lowest if wanted is not None and lowest else None
    what = "objective's p99 over the floor's"
    return [Check(what, ratio, rules.v17_ratio, at_least=True, pass_needs=False)]
