"""V11 and V15: was the server in its limits, and did it work for its answers?"""

import msgspec

from loadlab.record.read import Log
from loadlab.record.schema import PhaseName
from loadlab.target.cgroup import Limits
from loadlab.verdict.check import Check
from loadlab.verdict.criteria import Thresholds
from loadlab.verdict.figures import cpu_us

_PAGE_BYTES = 1 << 16
"""The largest page of a common kernel: memory limits are rounded down to whole ones."""


def limits(log: Log, _: Thresholds) -> list[Check]:
    """V11: quota and memory as the control groups say them, every process inside, as many replicas
    as asked for."""
    replicas, tier = log.run.replicas, log.run.tier
    if not replicas:
        return [
            Check(
                what="replicas read back",
                measured=None,
                limit=tier.replicas,
                at_least=True,
                of_server=True,
            )
        ]
    return [
        Check(
            what="replicas away from the tier", measured=abs(len(replicas) - tier.replicas), limit=0
        ),
        Check(
            what="replicas with other limits",
            measured=sum(1 for each in replicas if not _in_force(tier.limits, each.limits)),
            limit=0,
        ),
        Check(
            what="server processes outside",
            measured=sum(each.processes_outside for each in replicas),
            limit=0,
        ),
        Check(
            what="replicas without a process",
            measured=sum(1 for each in replicas if not each.processes_inside),
            limit=0,
        ),
    ]


def caching(log: Log, rules: Thresholds) -> list[Check]:
    """V15: CPU per request with one body for all users, against ones like it that were never sent
    before; or the cache is disclosed.

    A server that takes no such bodies is held against its steady phase, where one path of a large
    model looks like a cache.
    """
    others: PhaseName = "alike" if log.phase("alike") else "steady"
    many, one = cpu_us(log, others), cpu_us(log, "repeated")
    cheaper = 1 - one / many if one is not None and many else None
    if log.run.scenario.caching_disclosed:
        return [
            Check(
                what=f"disclosed: {log.run.scenario.caching_disclosed}; one body is cheaper by",
                measured=cheaper or 0.0,
                limit=1.0,
                unit="share",
                fail_needs=False,
                of_server=True,
            )
        ]
    return [
        Check(
            what="one body for everybody is "
            f"cheaper{' than new ones like it' if others == 'alike' else ''} by",
            measured=cheaper,
            limit=rules.v15_cheaper,
            unit="share",
            fail_needs=False,
            of_server=True,
        )
    ]


def _in_force(asked: Limits, found: Limits) -> bool:
    missing = (asked.memory_bytes or 0) - (found.memory_bytes or 0)
    return (
        0 <= missing < _PAGE_BYTES
        and msgspec.structs.replace(found, memory_bytes=asked.memory_bytes) == asked
    )
