"""What a load run shall do: the words of `just load`, understood, whether this machine can carry
that, and which processes make the load."""

import ipaddress
import math
import os
import re
import socket
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from loadlab import words
from loadlab.generator import launch
from loadlab.generator.launch import Cpus, Part
from loadlab.generator.plan import Load, Scenario
from loadlab.record.machine import usable_cpus
from loadlab.target.programs import address
from loadlab.target.serving import Asked
from loadlab.target.tiers import Tier
from loadlab.words import EngineChoice, LoadWords, Ramp, UsageError, UserKind

_USERS_PER_WORKER_HZ = 6000.0
"""Requests a second for one worker of RawHttpUsers: 5,660 were seen to cost 41 % of a core; rule V2
finds out if it is more."""
UNLIMITED = Tier(name="target", cpus=0.0, memory_bytes=0)
"""In place of a tier, for a server whose limits the lab does not set."""


class Order(Asked, frozen=True, kw_only=True):
    """What the user asked for, defaults filled in."""

    scenario: Scenario
    rate: float
    """Users started per second."""
    steady_s: float
    engine: EngineChoice
    ramp: Ramp
    user: UserKind
    seed: int
    repeats: int
    workers: int
    """Locust worker processes; 0: one for each core that the server leaves."""
    web: bool
    allow_host: str
    remote: int = 0
    """Locust workers on other machines; without `workers` there are no others then."""
    caching: str = ""
    """What the server is known to cache."""


def parse(
    given: Sequence[str], tiers: Mapping[str, Tier], scenarios: Mapping[str, Scenario]
) -> Order:
    """Understand the words of a command line; raises what `words.parse` and `understand` raise."""
    names = {"tier": tiers, "scenario": scenarios}
    return understand(words.parse(LoadWords, given, names=names), tiers, scenarios)


def understand(
    found: LoadWords, tiers: Mapping[str, Tier], scenarios: Mapping[str, Scenario]
) -> Order:
    """Find tier and scenario, fill in what the scenario says, and check what belongs together.

    Raises:
        UsageError: an unknown name, or values that exclude one another.
    """
    if not found.tier and not found.target:
        raise UsageError(f"tier= is missing; there are {', '.join(tiers)}")
    scenario = words.choose(scenarios, "scenario", found.scenario)
    order = Order(
        tier=words.choose(tiers, "tier", found.tier) if found.tier else UNLIMITED,
        scenario=scenario,
        users=found.users or scenario.users,
        steady_s=found.duration or scenario.steady,
        web=found.web == "on",
        **{name: getattr(found, name) for name in _AS_GIVEN},
    )
    _check(order)
    return order


_AS_GIVEN = set(LoadWords.__struct_fields__) & set(Order.__struct_fields__) - {
    *("tier", "scenario", "users", "web")
}


def guard(target: str, allow_host: str) -> None:
    """Refuse a host that is not this machine and was not allowed by name: load on others is an
    attack; raises `UsageError`."""
    host, _ = address(target)
    if host in {allow_host, "localhost"}:
        return
    try:
        if ipaddress.ip_address(host).is_loopback:
            return
    except ValueError:
        pass
    raise UsageError(
        f"target={target}: load goes to this machine only; if {host} is yours, say "
        f"allow-host={host}"
    )


def _check(order: Order) -> None:
    surge, name = order.scenario.surge, order.scenario.name
    if surge and order.steady_s < (end_s := surge.after + surge.seconds):
        raise UsageError(
            f"duration={order.steady_s:g}s: the surge of scenario={name} ends only after "
            f"{end_s:g} s"
        )
    if order.engine == "raw" and (order.user != "raw" or order.workers or order.web):
        of_locust = "users of Locust (user=), nor workers (workers=), nor its page (web=)"
        raise UsageError(f"engine=raw has neither {of_locust}")
    _check_remote(order)
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", order.model):
        raise UsageError(f"model={order.model} is invalid: expected a model's name")
    if order.balancer != "none" and (order.target or order.backend == "compose"):
        raise UsageError(
            f"balancer={order.balancer} is for processes of the lab (backend=cgroup); "
            "compose has its own"
        )
    if order.target:
        guard(order.target, order.allow_host)
        if order.backend != "auto":
            raise UsageError("target= is a server that runs already: backend= has nothing to start")


def _check_remote(order: Order) -> None:
    if not order.remote:
        if order.listen:
            raise UsageError(f"listen={order.listen}: only workers on other machines need it")
        return
    if order.engine == "raw":
        raise UsageError(
            "engine=raw is one process of this machine: remote= is for Locust's workers"
        )
    if order.backend == "compose" or order.balancer != "none":
        raise UsageError("remote= is for a server that is a process (backend=cgroup) or given")
    own = bool(order.listen)
    try:
        with socket.socket(type=socket.SOCK_DGRAM) as probe:
            probe.bind((order.listen, 0))
    except OSError:
        own = False
    if not own:
        raise UsageError(
            f"listen={order.listen} is not an IPv4 address of this machine: give the one that the "
            "other machines connect to"
        )


def cores_needed(tier: Tier) -> int:
    """Whole cores for the server's limit, and one for the generator."""
    return math.ceil(tier.cores) + 1


def too_small(tier: Tier) -> str:
    """Why this machine cannot measure a tier, or nothing."""
    cores, needed = len(usable_cpus()), cores_needed(tier)
    if cores >= needed:
        return ""
    shares = f"{tier.cores:g} for the server, one for the generator"
    here = "this machine has" if cores == os.cpu_count() else "this process may use"
    return f"tier {tier.name} needs {needed} cores ({shares}); {here} {cores}"


def server_cpus(tier: Tier) -> str:
    """The first whole CPUs that hold the tier, where some are left for the generator; as `taskset`
    takes them, or nothing."""
    usable = usable_cpus()
    held = usable[: math.ceil(tier.cores)] if len(usable) >= cores_needed(tier) else []
    return ",".join(map(str, held))


def worker_cpus(order: Order, server_cpus: Cpus) -> list[Cpus]:
    """For each worker of this machine the CPU that it is held to: those that the server leaves;
    all, if it leaves none. No more workers than needed: they cost CPU time that the server may
    want."""
    if order.remote and not order.workers:
        return []
    scenario = order.scenario
    surge = scenario.surge.factor if scenario.surge else 1.0
    per_worker_hz = _USERS_PER_WORKER_HZ if order.user == "raw" else _USERS_PER_WORKER_HZ / 4
    wanted = max(1, -int(-order.users / scenario.mean_think_s * surge // per_worker_hz))
    free = [cpu for cpu in usable_cpus() if cpu not in server_cpus] or usable_cpus()
    count = order.workers or min(len(free), wanted)
    return [frozenset({free[-1 - number % len(free)]}) for number in range(count)]


def processes(order: Order, server_cpus: Cpus) -> int:
    """How many processes share the users."""
    return 1 if order.engine == "raw" else len(worker_cpus(order, server_cpus)) + order.remote


def parts(order: Order, root: Path, server_cpus: Cpus) -> Callable[[Path, Load], list[Part]]:
    """Makes the processes for a folder and a load; `root` is the checkout."""
    held = worker_cpus(order, server_cpus)
    if order.engine == "raw":
        return lambda folder, _load: launch.raw(folder, held[0])
    return partial(
        launch.locust,
        root,
        user=order.user,
        cpus=held,
        others=server_cpus or frozenset(usable_cpus()),
        web=order.web,
        listen=order.listen,
    )
