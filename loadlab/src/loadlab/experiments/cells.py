"""The cells of the studies: what the course projects reported (`seeds.toml`), one replica or
several, the quota's period and burst, what keep-alive does to replicas behind a balancer."""

from collections.abc import Sequence
from itertools import product
from pathlib import Path

import msgspec
from msgspec.structs import replace

from loadlab.generator import scenarios
from loadlab.run.order import Order, understand
from loadlab.target.tiers import Tier
from loadlab.words import LoadWords, UsageError

SEEDS = Path(__file__).with_name("seeds.toml")
SHAPES = (
    (0.5, 512, 1, 0.5, "none"),
    (0.5, 512, 1, 0.5, "http"),
    (0.5, 512, 2, 0.25, "http"),
    (0.5, 512, 3, 0.167, "http"),
    (1.0, 1024, 1, 1.0, "none"),
    (1.0, 1024, 1, 1.0, "http"),
    (1.0, 1024, 2, 0.5, "http"),
)
"""CPU in all, MiB in all, replicas, CPU of each, balancer. One replica needs none; behind one it
shows what the balancer alone costs."""
_LOADS = {0.5: "course", 0.25: "steady"}
"""CPU limit → the scenario that keeps it busy: a quota that is never used up stops no process."""
_PERIODS_US = (100_000, 10_000)
_DEALING_USERS = 6000
"""A balancer of connections holds two for every user: 12,000 files stay below a common hard limit
of 20,000."""


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """One configuration of one service; `key` and `order.service` together name it."""

    key: str
    order: Order


class Configuration(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a course project reported; `seeds.toml` says what the fields mean."""

    key: str
    seed: str
    reported: str
    replicas: int
    cpus: float
    memory_mib: int
    users: int
    rate: int
    think: tuple[float, float]
    model: str
    assumed: str
    workers: int = 0
    locust_workers: int = 0


def configurations() -> list[Configuration]:
    """All that were reported."""
    return msgspec.toml.decode(SEEDS.read_bytes(), type=dict[str, list[Configuration]])[
        "configuration"
    ]


def choose(found: Sequence[Configuration], only: str) -> list[Configuration]:
    """Those whose key begins with one of the comma-separated words, as 003 or 000-one; all without
    any; raises `UsageError`."""
    wanted = tuple(word for word in only.split(",") if word)
    unknown = [word for word in wanted if not any(each.key.startswith(word) for each in found)]
    if unknown:
        raise UsageError(
            f"only={only}: {', '.join(unknown)} begins no key; there are "
            f"{', '.join(each.key for each in found)}"
        )
    return [each for each in found if not wanted or each.key.startswith(wanted)]


def seeds(found: Sequence[Configuration], load: LoadWords, against: str) -> list[Cell]:
    """Halfcore and a baseline in every configuration; `load` is duration, engine and seed."""
    made, steady = [], scenarios.read()["steady"]
    for each in found:
        tier = Tier(
            name=f"seed-{each.key}",
            cpus=each.cpus,
            memory_bytes=each.memory_mib << 20,
            replicas=each.replicas,
        )
        words = replace(
            load,
            users=each.users,
            rate=each.rate,
            model=each.model,
            balancer="http" if each.replicas > 1 else "none",
        )
        if each.locust_workers:  # the number of workers is Locust's
            words = replace(words, engine="locust", workers=each.locust_workers)
        scenario = replace(steady, think=list(each.think), users=each.users)
        for service in ("halfcore", against):
            order = replace(_order(tier, words), service=service, scenario=scenario)
            order = replace(order, service_workers=each.workers)
            made.append(Cell(key=each.key, order=order))
    return made


def scale(load: LoadWords) -> list[Cell]:
    """The same CPU and memory in all, as one replica or as several behind HAProxy."""
    found = []
    for total, mib, replicas, cpus, balancer in SHAPES:
        key = shape_key(total, replicas, balancer)
        memory_bytes = (mib << 20) // replicas
        tier = Tier(name=key, cpus=cpus, memory_bytes=memory_bytes, replicas=replicas)
        found.append(Cell(key=key, order=_order(tier, replace(load, balancer=balancer))))
    return found


def shape_key(total: float, replicas: int, balancer: str) -> str:
    """Of a cell: total-as-replicas, and whether they have a balancer."""
    return f"{total:g}-as-{replicas}{'' if balancer == 'none' else '-balanced'}".replace(".", "_")


def quota(load: LoadWords) -> list[Cell]:
    """Limits with each period, without and with a burst; and replicas behind each balancer."""
    found = []
    for (cpus, scenario), period_us, bursts in product(_LOADS.items(), _PERIODS_US, (False, True)):
        key = f"quota-{cpus:g}-{period_us // 1000}ms{'-burst' if bursts else ''}".replace(".", "_")
        burst_us = round(cpus * period_us) if bursts else 0  # one quota: the kernel's most
        tier = Tier(
            name=key, cpus=cpus, memory_bytes=512 << 20, period_us=period_us, burst_us=burst_us
        )
        found.append(Cell(key=key, order=_order(tier, replace(load, scenario=scenario))))
    for mode, late in product(("http", "tcp"), (False, True)):
        key = f"dealing-{mode}{'-late' if late else ''}"
        tier = Tier(name=key, cpus=0.25, memory_bytes=256 << 20, replicas=3)
        order = _order(tier, replace(load, users=_DEALING_USERS, balancer=mode))
        found.append(Cell(key=key, order=replace(order, late=late)))
    return found


def _order(tier: Tier, load: LoadWords) -> Order:
    """For limits that are in no compose file."""
    return understand(replace(load, tier=tier.name), {tier.name: tier}, scenarios.read())
