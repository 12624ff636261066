"""When to stop a run early: the server is gone or hangs, the generator broke, the disk is full, or
the objective cannot be met any more."""

from collections.abc import Sequence

from loadlab.record.criteria import Objective
from loadlab.record.form import EndKind
from loadlab.run.book import Moment

HUNG_S = 15
_ERROR_SHARE, _ERROR_S = 0.05, 5
_SLOW_TIMES, _SLOW_S = 10, 10


class Fault(Exception):
    """The run ends here.

    Args:
        kind: as the record names it.
        sentence: for people.
    """

    def __init__(self, kind: EndKind, sentence: str) -> None:
        super().__init__(sentence)
        self.kind, self.sentence = kind, sentence


def hopeless(moments: Sequence[Moment], objective: Objective, witnessed: int = 0) -> Fault | None:
    """Why the run cannot succeed any more, by its last whole seconds; None: continue.

    A server that answered nothing for `HUNG_S` seconds although asked hangs, unless it answered the
    witness: then it is the generator that does. Time-outs alone are no errors to stop for: they
    begin before that time is over. A server with more than 5 % errors for 5 s, or with a p95 of ten
    times the objective for 10 s, will not meet its objective any more: the run ends, so that a
    search over many tiers takes no hours.
    """
    return (
        _hung(moments[-HUNG_S:], witnessed)
        or _erring(moments[-_ERROR_S:])
        or _slow(moments[-_SLOW_S:], objective)
    )


def _hung(last: Sequence[Moment], witnessed: int) -> Fault | None:
    if len(last) == HUNG_S and all(each.silent for each in last) and not witnessed:
        waiting = max(each.in_flight for each in last)
        return Fault(
            "server_hung",
            f"the server gave no answer for {HUNG_S} s while up to {waiting:,} requests waited",
        )
    return None


def _erring(last: Sequence[Moment]) -> Fault | None:
    erring = len(last) == _ERROR_S and all(
        each.failed > _ERROR_SHARE * (each.answered + each.failed) for each in last
    )
    if erring and not all(each.silent for each in last):
        share = sum(each.failed for each in last) / sum(
            each.answered + each.failed for each in last
        )
        return Fault(
            "aborted",
            f"stopped early: {share:.0%} of the answers of the last {_ERROR_S} s were errors",
        )
    return None


def _slow(last: Sequence[Moment], objective: Objective) -> Fault | None:
    if objective.p95_ms is not None and len(last) == _SLOW_S:
        slowest = [each.p_ms(0.95) for each in last]
        if all(p95 is not None and p95 > _SLOW_TIMES * objective.p95_ms for p95 in slowest):
            return Fault(
                "aborted",
                (
                    f"stopped early: p95 was above {_SLOW_TIMES * objective.p95_ms:g} ms for "
                    f"{_SLOW_S} s"
                ),
            )
    return None
