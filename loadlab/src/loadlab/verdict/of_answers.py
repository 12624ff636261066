"""V12–V14, V16, V17: are the answers enough, steady, looked at, and seen by others too?"""

from loadlab.record.read import LOAD, Log
from loadlab.verdict.check import Check
from loadlab.verdict.criteria import Thresholds
from loadlab.verdict.figures import answered, failed, quantile_ms
from loadlab.verdict.of_generator import under_load
from loadlab.verdict.steadiness import agreement, backlog, trend, windows

_WITNESSED = 130
"""Answers that a p95 needs (MLPerf's bound)."""
_WHOLE = 0.95
"""Of the steady phase as asked for: it was not cut short."""


def samples(log: Log, rules: Thresholds) -> list[Check]:
    """V12: right answers enough for a p99."""
    return [
        Check(
            what="right answers",
            measured=answered(log.of("users", "steady")),
            limit=rules.v12_samples,
            at_least=True,
            fail_needs=False,
        )
    ]


def steady(log: Log, rules: Thresholds) -> list[Check]:
    """V13: settled before, whole, and without a trend that leads out of the objective."""
    asked, objective = log.run.scenario.duration_s, log.run.criteria.objective
    return [
        *agreement(windows(log, rules.v13_window_s, "settle"), rules, objective),
        Check(
            what="steady lasted",
            measured=log.lasted_s("steady"),
            limit=asked * _WHOLE,
            at_least=True,
            unit="s",
            fail_needs=False,
        ),
        trend(windows(log, rules.v13_window_s, "steady"), rules, objective),
        *backlog(log, objective),
    ]


def checked(log: Log, rules: Thresholds) -> list[Check]:
    """V14: every request has an end that was looked at, and every answer that counts was compared
    whole with the right one."""
    lines = log.of("users", *LOAD)
    right = answered(lines)
    counted = log.of("users", "ramp", "settle", "steady")
    compared = sum(line.deep_checked for line in counted)
    unfinished = log.run.drain.unfinished if log.run.drain else None
    lost = (
        None
        if unfinished is None
        else abs(sum(line.intended for line in lines) - right - failed(lines) - unfinished)
    )
    return [
        Check(what="requests without a known end", measured=lost, limit=0, fail_needs=False),
        Check(
            what="answers compared",
            measured=compared / answered(counted) if answered(counted) else None,
            limit=rules.v14_deep,
            at_least=True,
            unit="share",
            fail_needs=False,
        ),
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
    phases = under_load(log)
    whole = phases == ("steady",)
    mine, theirs = (
        log.histogram("witness", "response", *phases),
        log.histogram("users", "response", *phases),
    )
    seen_by_witness = mine.total() if log.of("witness") else None
    checks = [
        Check(
            what="answers to the witness",
            measured=seen_by_witness,
            limit=_WITNESSED,
            at_least=True,
            fail_needs=whole,
        )
    ]
    asked = log.run.criteria.objective
    for name, q, share, tolerance_ms, allowed_ms in (
        ("p50", 0.5, rules.v16_p50, rules.v16_p50_tolerance_ms, asked.p50_ms),
        ("p95", 0.95, rules.v16_p95, rules.v16_p95_tolerance_ms, asked.p95_ms),
    ):
        seen, reported = quantile_ms(mine, q), quantile_ms(theirs, q)
        apart = abs(seen - reported) if seen is not None and reported is not None else None
        limit = max(share * (reported or 0.0), tolerance_ms)
        suspect = (
            seen is None
            or reported is None
            or (reported >= seen and (allowed_ms is None or seen <= allowed_ms))
        )
        checks.append(
            Check(
                what=f"{name} apart",
                measured=apart,
                limit=limit,
                unit="ms",
                pass_needs=seen is None or reported is None or seen > reported,
                fail_needs=whole and suspect,
            )
        )
    return checks


def floor(log: Log, rules: Thresholds) -> list[Check]:
    """V17: the objective's p99 over the null server's."""
    lowest, wanted = (
        quantile_ms(log.histogram("floor", "response"), 0.99),
        log.run.criteria.objective.p99_ms,
    )
    ratio = wanted / lowest if wanted is not None and lowest else None
    return [
        Check(
            what="objective's p99 over the floor's",
            measured=ratio,
            limit=rules.v17_ratio,
            at_least=True,
            pass_needs=False,  # the floor is part of every latency
        )
    ]
