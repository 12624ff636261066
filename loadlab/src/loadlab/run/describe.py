"""What a record says before anything has run: order, machine, criteria."""

import hashlib
import math
import os
import platform
import resource
import sys
from datetime import UTC, datetime
from pathlib import Path

from loadlab.record import counters, form, machine
from loadlab.record.limits import Limits
from loadlab.record.machine import Fingerprint
from loadlab.run.arguments import Order
from loadlab.target import tiers
from loadlab.target.cgroup import Unavailable
from loadlab.target.start import Backend
from loadlab.target.tiers import Tier
from loadlab.verdict.criteria import criteria

_ENGINES: dict[str, form.Engine] = {
    "raw": "locust-raw",
    "fast": "locust-fast",
    "fast-unmended": "locust-fast",
    "stock": "locust-http",
}
_GENERATOR_PACKAGES = ("locust", "gevent", "geventhttpclient")


def run(
    name: str, order: Order, root: Path, backend: Backend, *, set_id: str, repeat: int
) -> form.Run:
    """The record of a run that has not begun."""
    return form.Run(
        id=name,
        started_at=datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        command=" ".join(["just load", *sys.argv[2:]]),
        backend="compose" if backend == "compose" else "cgroup",
        engine="raw" if order.engine == "raw" else _ENGINES[order.user],
        seed=order.seed,
        target=order.target,
        observed=not order.target,
        tier=_tier(order.tier, backend),
        scenario=_scenario(order),
        fingerprint=_fingerprint(root),
        details=_details(root, order),
        criteria=criteria(order.scenario.name),
        set_id=set_id,
        repeat=repeat,
        repeats=order.repeats,
        ports=counters.ports(),
    )


def _tier(tier: Tier, backend: Backend) -> form.Tier:
    cpus = server_cpus(tier) if backend == "cgroup" else ""
    return form.Tier(
        name=tier.name,
        limits=Limits() if backend == "given" else tier.limits,
        replicas=tier.replicas,
        cpus=[int(cpu) for cpu in cpus.split(",") if cpu],
        cores_needed=cores_needed(tier),
    )


def _scenario(order: Order) -> form.Scenario:
    scenario = order.scenario
    return form.Scenario(
        name=scenario.name,
        users=order.users,
        spawn_rate_hz=order.rate,
        ramp=order.ramp,
        duration_s=scenario.surge.after if scenario.surge else order.steady_s,
        think_s=None if scenario.open else (scenario.think[0], scenario.think[-1]),
        rate_hz=order.users / scenario.mean_think_s if scenario.open else None,
        models=[order.model],
    )


def cores_needed(tier: Tier) -> int:
    """Whole cores for the server's limit, and one for the generator."""
    return math.ceil(tier.cores) + 1


def too_small(tier: Tier) -> str:
    """Why this machine cannot measure a tier, or nothing."""
    cores = os.cpu_count() or 1
    if cores >= cores_needed(tier):
        return ""
    needed = f"{cores_needed(tier)} cores ({tier.cores:g} for the server, one for the generator)"
    return f"tier {tier.name} needs {needed}; this machine has {cores}"


def server_cpus(tier: Tier) -> str:
    """The first whole CPUs that hold the tier, where some are left for the generator; as `taskset`
    takes them, or nothing."""
    cores = os.cpu_count() or 1
    return ",".join(map(str, range(math.ceil(tier.cores)))) if cores >= cores_needed(tier) else ""


def _fingerprint(root: Path) -> Fingerprint:
    nofile = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    try:
        return machine.fingerprint(root, machine.versions(_GENERATOR_PACKAGES), nofile)
    except Unavailable:  # containers need no control groups of ours
        return machine.fingerprint(
            root, machine.versions(_GENERATOR_PACKAGES), nofile, cgroup_version=0
        )


def _details(root: Path, order: Order) -> dict[str, str]:
    compose = root / tiers.FILE
    return {
        "model": order.model,
        "tiers_sha256": hashlib.sha256(compose.read_bytes()).hexdigest()
        if compose.exists()
        else "",
        "clock_source": _text("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
        "governor": _text("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "kernel_arguments": _text("/proc/cmdline"),
        "virtualisation": _text("/sys/class/dmi/id/product_name"),
        "system": platform.platform(),
        "tcp_tw_reuse": _text("/proc/sys/net/ipv4/tcp_tw_reuse"),
    }


def _text(file: str) -> str:
    try:
        return Path(file).read_text().strip()
    except OSError:
        return ""
