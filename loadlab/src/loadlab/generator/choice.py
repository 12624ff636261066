"""Which processes make the load, and on which CPUs."""

import os
from collections.abc import Callable
from pathlib import Path

from loadlab.generator import locust, raw
from loadlab.generator.plan import Load
from loadlab.generator.process import Part
from loadlab.run.order import Order

_USERS_PER_WORKER_HZ = 6000.0
"""Requests a second for one worker of RawHttpUsers: 5,660 were seen to cost 41 % of a core; rule V2
finds out if it is more."""


def workers(order: Order, server_cpus: frozenset[int]) -> list[frozenset[int]]:
    """For each worker the CPU that it is held to: those that the server leaves; all, if it leaves
    none."""
    everywhere = frozenset(os.sched_getaffinity(0))
    free = sorted(everywhere - server_cpus) or sorted(everywhere)
    count = order.workers or min(len(free), wanted(order))
    return [frozenset({free[-1 - number % len(free)]}) for number in range(count)]


def wanted(order: Order) -> int:
    """Workers that the load needs: more than needed cost CPU time that the server may want."""
    rate = (
        order.users
        / order.scenario.mean_think_s
        * (order.scenario.surge.factor if order.scenario.surge else 1.0)
    )
    per_worker = _USERS_PER_WORKER_HZ if order.user == "raw" else _USERS_PER_WORKER_HZ / 4
    return max(1, -int(-rate // per_worker))


def parts(
    order: Order, root: Path, server_cpus: frozenset[int]
) -> Callable[[Path, Load], list[Part]]:
    """Makes the processes for a folder and a load."""
    held = workers(order, server_cpus)
    others = server_cpus or frozenset(os.sched_getaffinity(0))

    def make(folder: Path, load: Load) -> list[Part]:
        if order.engine == "raw":
            return raw.parts(folder, held[:1])
        return locust.parts(
            root,
            folder,
            load,
            user=order.user,
            cpus=held,
            others=others,
            web=order.web and load.users == order.users,
        )

    return make
