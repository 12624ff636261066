"""What the quota's period and a burst do to latency, and what keep-alive does to replicas behind a
balancer of connections."""

from collections.abc import Mapping
from itertools import product

from loadlab.experiments.studies.cells import cell
from loadlab.experiments.studies.form import Cell
from loadlab.target.tiers import Tier

LOADS = {0.5: "course", 0.25: "steady"}
"""CPU limit → the scenario that keeps it busy: a quota that is never used up stops no process."""
PERIODS_US = (100_000, 10_000)
DEALING = tuple(product(("http", "tcp"), (False, True)))
"""(mode, the last replica joins late)."""
DEALING_USERS = 6000
"""A balancer of connections holds two for every user: 12,000 files stay below a common hard limit
of 20,000."""
_MEMORY_BYTES = 512 << 20
_REPLICAS, _REPLICA_CPUS, _REPLICA_BYTES = 3, 0.25, 256 << 20


def cells(words: Mapping[str, str]) -> list[Cell]:
    """All cells for Halfcore; `words` are those of a load run, without scenario and users."""
    return [*_quotas(words), *_dealings(words)]


def _quotas(words: Mapping[str, str]) -> list[Cell]:
    found = []
    for (cpus, scenario), period_us, bursts in product(LOADS.items(), PERIODS_US, (False, True)):
        burst_us = (
            round(cpus * period_us) if bursts else 0
        )  # the most that the kernel allows: one quota
        key = f"quota-{cpus:g}-{period_us // 1000}ms{'-burst' if bursts else ''}".replace(".", "_")
        tier = Tier(
            name=key, cpus=cpus, memory_bytes=_MEMORY_BYTES, period_us=period_us, burst_us=burst_us
        )
        found.append(cell(key, tier, {**words, "scenario": scenario}))
    return found


def _dealings(words: Mapping[str, str]) -> list[Cell]:
    found = []
    for mode, late in DEALING:
        key = f"dealing-{mode}{'-late' if late else ''}"
        tier = Tier(name=key, cpus=_REPLICA_CPUS, memory_bytes=_REPLICA_BYTES, replicas=_REPLICAS)
        found.append(
            cell(
                key,
                tier,
                {**words, "scenario": "steady", "users": str(DEALING_USERS), "balancer": mode},
                late=late,
            )
        )
    return found
