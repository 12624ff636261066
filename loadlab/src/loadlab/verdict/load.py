"""V1–V4, V10, V12, V14–V17: did the generator do what it was ordered to do, on time; are the
answers enough, looked at, and seen by others too; and did the server work for them, or remember
them?
"""

import bisect
import math
from collections.abc import Sequence

from loadlab.record.schema import LOAD, Phase, PhaseName, Thresholds
from loadlab.record.store import Log
from loadlab.verdict.check import Check
from loadlab.verdict.figures import (
    UNDER_LOAD,
    alive,
    answered,
    busiest_second,
    cpu_s,
    cpu_us,
    done,
    grown,
    judged_phases,
    known,
    quantile_ms,
    rate,
    worst_generator,
)
from loadlab.verdict.stats import paired_saving

_WITNESSED = 130
"""Answers that a p95 needs (MLPerf's bound)."""
_CHEAPER = "bodies sent before are cheaper than new ones by (99 % sure) at least"
_MOST_SAVED = 0.5
"""A cache that saves this share of the CPU time must be visible: turns too noisy for it prove
nothing."""


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


def caching(log: Log, rules: Thresholds) -> list[Check]:
    """V15: CPU time per answer with the bodies of the steady phase, against that with bodies that
    nobody has sent; or the cache is disclosed."""
    checks = _of_one_body(log, rules) if log.phase("repeated") else _of_turns(log, rules)
    if not (disclosed := log.run.scenario.caching_disclosed):
        return checks
    cheaper = checks[0].measured or 0.0
    return [_saved(f"disclosed: {disclosed}; {checks[0].what}", cheaper, 1.0)]


def turns(log: Log) -> list[tuple[float, float]]:
    """CPU time per answer of each pair of neighbouring turns, microseconds: with bodies of the pool
    and with fresh ones. A pair that was cut off, or not recorded, is left out."""
    of_turn = [phase for phase in log.run.phases if phase.name in ("pool", "fresh")]
    found = []
    counter = known(log.samples, cpu_s)
    for both in zip(of_turn[::2], of_turn[1::2], strict=False):
        spent = {phase.name: _turn_us(log, phase, counter) for phase in both}
        pool, fresh = spent.get("pool"), spent.get("fresh")
        if pool and fresh:
            found.append((pool, fresh))
    return found


def _of_turns(log: Log, rules: Thresholds) -> list[Check]:
    if log.run.details.get("fresh_bodies", "").startswith("none"):
        return [_saved(_CHEAPER, None, 0, "the model has too few different rows to find a cache")]
    inference_us = float(log.run.details.get("inference_us", 0))
    # Rows drawn from ranges may take shorter or longer paths through a forest than real ones.
    more_us = float(log.run.details.get("fresh_inference_us", inference_us)) - inference_us
    found = paired_saving(
        [(pool, fresh - more_us) for pool, fresh in turns(log) if fresh > more_us],
        rules.v15_cheaper,
    )
    if found is None:
        return [_saved(_CHEAPER, None, rules.v15_cheaper)]
    request_us = cpu_us(log, "steady")
    most = min(inference_us / request_us, 1.0) if inference_us and request_us else _MOST_SAVED
    if found.at_least <= rules.v15_cheaper and most < min(found.visible, _MOST_SAVED):
        note = (
            f"inference takes {inference_us:.0f} µs of {request_us:.0f} µs a request: a cache "
            "saves too little to be distinguished"
        )
        return [_saved(_CHEAPER, max(found.at_least, 0.0), rules.v15_cheaper, note)]
    return [
        _saved(_CHEAPER, max(found.at_least, 0.0), rules.v15_cheaper),
        _saved("the least that would have been found", found.visible, most),
    ]


def _turn_us(log: Log, turn: Phase, counter: Sequence[tuple[float, float]]) -> float | None:
    """Of one turn, with the witness's answers, which the server works for too; the counter's values
    at the turn's edges lie between samples."""
    end_s, values = log.end_of(turn), []
    for t in (turn.start_s, end_s):
        place = bisect.bisect_left(counter, (t, 0.0))
        if not 0 < place < len(counter):
            return None
        (before, less), (after, more) = counter[place - 1 : place + 1]
        values.append(less + (more - less) * (t - before) / (after - before))
    lines = [*log.of("users", turn.name), *log.of("witness", turn.name)]
    right = answered(line for line in lines if turn.start_s <= line.t < end_s)
    return (values[1] - values[0]) / right * 1e6 if right else None


def _of_one_body(log: Log, rules: Thresholds) -> list[Check]:
    """As older records have it: one body for all users, against ones like it that were never sent
    before; against the steady phase where a server took no such bodies."""
    others: PhaseName = "alike" if log.phase("alike") else "steady"
    many, one = cpu_us(log, others), cpu_us(log, "repeated")
    cheaper = 1 - one / many if one is not None and many else None
    like = " than new ones like it" if others == "alike" else ""
    return [_saved(f"one body for everybody is cheaper{like} by", cheaper, rules.v15_cheaper)]


def _saved(what: str, measured: float | None, limit: float, note: str = "") -> Check:
    """A cache makes figures better: no FAIL needs this."""
    return Check(what, measured, limit, "share", fail_needs=False, of_server=True, note=note)
