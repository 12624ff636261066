"""`just load tier=half-core users=1000 …`: from words `key=value` to an order; unknown keys and
values are refused with the known ones."""

import ipaddress
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args
from urllib.parse import urlsplit

import msgspec

from loadlab.generator.scenarios import Scenario
from loadlab.generator.scenarios import choose as choose_scenario
from loadlab.target.tiers import Tier
from loadlab.target.tiers import choose as choose_tier
from loadlab.words import UsageError

Backend = Literal["auto", "cgroup", "compose"]
Engine = Literal["locust", "raw"]
Ramp = Literal["smooth", "stepped"]
Balancer = Literal["none", "http", "tcp"]
"""`http` deals out requests, `tcp` connections; `none`: users take the replicas' addresses in
turn."""
UserKind = Literal["raw", "fast", "stock", "fast-unmended"]

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(s|m|h|)")
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600}


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What the user asked for, defaults filled in."""

    tier: Tier
    scenario: Scenario
    users: int
    rate: float
    """Users started per second."""
    steady_s: float
    backend: Backend
    engine: Engine
    ramp: Ramp
    user: UserKind
    model: str
    seed: int
    repeats: int
    workers: int
    """Locust worker processes; 0: one for each core that the server leaves."""
    web: bool
    target: str
    """host:port of a server that runs already; empty: the lab starts one."""
    allow_host: str
    service: str = "halfcore"
    """Or a variant of the baseline, for comparisons; `image` is a published image."""
    image: str = ""
    """Its name, for service `image`."""
    service_workers: int = 0
    """Worker processes in each replica of a baseline; 0: as the variant chooses."""
    balancer: Balancer = "none"
    """What the lab puts before the replicas that it starts as processes."""
    late: bool = False
    """The last replica joins when all users are there; for studies."""


DEFAULTS = {
    "scenario": "steady",
    "users": "",
    "rate": "500",
    "duration": "",
    "backend": "auto",
    "target": "",
    "repeats": "1",
    "web": "off",
    "engine": "locust",
    "ramp": "smooth",
    "user": "raw",
    "workers": "0",
    "model": "iris",
    "seed": "1",
    "allow-host": "",
    "balancer": "none",
}
KEYS = ("tier", *DEFAULTS)
UNLIMITED = Tier(name="target", cpus=0.0, memory_bytes=0)
"""In place of a tier, for a server whose limits the lab does not set."""


def parse(
    words: Sequence[str],
    tiers: Mapping[str, Tier],
    scenarios: Mapping[str, Scenario],
    *,
    offered: Sequence[str] = KEYS,
) -> Order:
    """Understand the words of a command line.

    Args:
        offered: the keys that the refusal of an unknown one lists; a command with its own keys
            gives those, too.

    Raises:
        UsageError, TierError, ScenarioError: an unknown key, one given twice, or a value that is
            not possible.
    """
    given = DEFAULTS | _pairs(words, offered)
    if "tier" not in given and not given["target"]:
        raise UsageError(f"tier= is missing; there are {', '.join(tiers)}")
    scenario = choose_scenario(scenarios, given["scenario"])
    order = Order(
        tier=choose_tier(tiers, given["tier"]) if "tier" in given else UNLIMITED,
        scenario=scenario,
        users=_count("users", given["users"] or str(scenario.users), 1, 1_000_000),
        rate=_count("rate", given["rate"], 1, 100_000),
        steady_s=_duration(given["duration"]) if given["duration"] else scenario.steady,
        backend=_one_of("backend", given["backend"], Backend),
        engine=_one_of("engine", given["engine"], Engine),
        ramp=_one_of("ramp", given["ramp"], Ramp),
        user=_one_of("user", given["user"], UserKind),
        model=given["model"],
        seed=_count("seed", given["seed"], 0, 2**31),
        repeats=_count("repeats", given["repeats"], 1, 100),
        workers=_count("workers", given["workers"], 0, 256),
        web=_one_of("web", given["web"], Literal["on", "off"]) == "on",
        target=given["target"],
        allow_host=given["allow-host"],
        balancer=_one_of("balancer", given["balancer"], Balancer),
    )
    _check(order)
    return order


def address(target: str) -> tuple[str, int]:
    """Host and port of `target=`, given as host:port or http://host:port; raises `UsageError`."""
    parts = urlsplit(target if "//" in target else f"//{target}")
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or not port or parts.scheme not in {"", "http"} or parts.path.strip("/"):
        raise UsageError(f"target={target} is invalid: expected host:port")
    return host, port


def _check(order: Order) -> None:
    if (
        order.scenario.surge
        and order.steady_s < order.scenario.surge.after + order.scenario.surge.seconds
    ):
        raise UsageError(
            f"duration={order.steady_s:g}s: the surge of "
            f"scenario={order.scenario.name} ends only after "
            f"{order.scenario.surge.after + order.scenario.surge.seconds:g} s"
        )
    if order.engine == "raw" and (order.user != "raw" or order.workers or order.web):
        raise UsageError(
            "engine=raw has neither users of Locust (user=), nor workers (workers=), nor its page "
            "(web=)"
        )
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


def guard(target: str, allow_host: str) -> None:
    """Refuse a host that is not this machine and was not allowed by name: load on others is an
    attack; raises `UsageError`."""
    host, _ = address(target)
    if host == allow_host or host == "localhost":
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


def _pairs(words: Sequence[str], offered: Sequence[str]) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or key not in KEYS:
            raise UsageError(
                f"{word}: unknown; expected key=value with one of {', '.join(offered)}"
            )
        if key in pairs:
            raise UsageError(f"{key}= is given twice")
        if not value:
            raise UsageError(f"{key}= has no value")
        pairs[key] = value
    return pairs


def _one_of(key: str, value: str, choices: Any) -> Any:
    if value not in get_args(choices):
        raise UsageError(f"{key}={value} is unknown; there are {', '.join(get_args(choices))}")
    return value


def _count(key: str, text: str, least: int, most: int) -> int:
    if not text.isdecimal() or not least <= int(text) <= most:
        raise UsageError(
            f"{key}={text} is invalid: expected a whole number from {least:,} to {most:,}"
        )
    return int(text)


def _duration(text: str) -> float:
    found = _DURATION.fullmatch(text)
    if not found or float(found[1]) <= 0:
        raise UsageError(
            f"duration={text} is invalid: expected seconds, or a number with s, m or h, as in 10m"
        )
    return float(found[1]) * _SECONDS[found[2]]
