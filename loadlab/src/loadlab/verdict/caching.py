"""V15: did the server work for its answers, or remember them?"""

import bisect
from collections.abc import Sequence

from loadlab.record.criteria import Thresholds
from loadlab.record.read import Log
from loadlab.record.schema import Phase, PhaseName
from loadlab.verdict.check import Check
from loadlab.verdict.figures import answered, cpu_s, cpu_us, known
from loadlab.verdict.stats import paired_saving

_WHAT = "bodies sent before are cheaper than new ones by (99 % sure) at least"
_MOST_OF_IT = 0.5
"""A cache that saves this share of the CPU time must be visible: turns too noisy for it prove
nothing."""


def caching(log: Log, rules: Thresholds) -> list[Check]:
    """CPU time per answer with the bodies of the steady phase, against that with bodies that nobody
    has sent; or the cache is disclosed."""
    checks = _of_one_body(log, rules) if log.phase("repeated") else _of_turns(log, rules)
    if not (disclosed := log.run.scenario.caching_disclosed):
        return checks
    cheaper = checks[0].measured or 0.0
    return [_check(f"disclosed: {disclosed}; {checks[0].what}", cheaper, 1.0)]


def turns(log: Log) -> list[tuple[float, float]]:
    """CPU time per answer of each pair of neighbouring turns, microseconds: with bodies of the pool
    and with fresh ones. A pair that was cut off, or not recorded, is left out."""
    of_turn = [phase for phase in log.run.phases if phase.name in ("pool", "fresh")]
    found = []
    counter = known(log.samples, cpu_s)
    for both in zip(of_turn[::2], of_turn[1::2], strict=False):
        spent = {phase.name: _cpu_us(log, phase, counter) for phase in both}
        pool, fresh = spent.get("pool"), spent.get("fresh")
        if pool and fresh:
            found.append((pool, fresh))
    return found


def _of_turns(log: Log, rules: Thresholds) -> list[Check]:
    if log.run.details.get("fresh_bodies", "").startswith("none"):
        return [_check(_WHAT, None, 0, "the model has too few different rows to find a cache")]
    inference_us = float(log.run.details.get("inference_us", 0))
    # Rows drawn from ranges may take shorter or longer paths through a forest than real ones.
    more_us = float(log.run.details.get("fresh_inference_us", inference_us)) - inference_us
    found = paired_saving(
        [(pool, fresh - more_us) for pool, fresh in turns(log) if fresh > more_us],
        rules.v15_cheaper,
    )
    if found is None:
        return [_check(_WHAT, None, rules.v15_cheaper)]
    request_us = cpu_us(log, "steady")
    most = min(inference_us / request_us, 1.0) if inference_us and request_us else _MOST_OF_IT
    if found.at_least <= rules.v15_cheaper and most < min(found.visible, _MOST_OF_IT):
        note = (
            f"inference takes {inference_us:.0f} µs of {request_us:.0f} µs a request: a cache "
            "saves too little to be distinguished"
        )
        return [_check(_WHAT, max(found.at_least, 0.0), rules.v15_cheaper, note)]
    return [
        _check(_WHAT, max(found.at_least, 0.0), rules.v15_cheaper),
        _check("the least that would have been found", found.visible, most),
    ]


def _cpu_us(log: Log, turn: Phase, counter: Sequence[tuple[float, float]]) -> float | None:
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
    return [_check(f"one body for everybody is cheaper{like} by", cheaper, rules.v15_cheaper)]


def _check(what: str, measured: float | None, limit: float, note: str = "") -> Check:
    """A cache makes figures better: no FAIL needs this."""
    return Check(what, measured, limit, "share", fail_needs=False, of_server=True, note=note)
