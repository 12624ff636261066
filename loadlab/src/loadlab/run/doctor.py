"""`just load-doctor`: what this machine can carry, and what is missing, before anything is
started."""

import os
import resource
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from loadlab.record import counters, machine
from loadlab.run.describe import too_small
from loadlab.target import cgroup, containers
from loadlab.target.tiers import Tier

_USERS = 10_000
_SPARE_FILES = 512


class Finding(NamedTuple):
    """One thing that was looked at; `hint` says what to do, and is empty where all is well."""

    what: str
    found: str
    hint: str = ""


def show(tiers: Mapping[str, Tier], root: Path, console: Console) -> int:
    """Print what was found; returns 0 if some backend works and 10,000 users can be had, else 4."""
    findings = examine(tiers, root)
    table = Table(box=None)
    for heading in ("", "found", "what to do"):
        table.add_column(heading, overflow="fold")
    for finding in findings:
        table.add_row(finding.what, finding.found, finding.hint or "–")
    console.print(table)
    stopped = {"open files", "ports"} & {finding.what for finding in findings if finding.hint}
    backends = [
        finding for finding in findings if finding.what.startswith("backend") and not finding.hint
    ]
    return 4 if stopped or not backends else 0


def examine(tiers: Mapping[str, Tier], root: Path) -> list[Finding]:
    """Look at everything that a run needs."""
    return [
        _cores(tiers.values()),
        _cgroups(),
        _containers(tiers.values(), root),
        _bundles(root),
        _files(),
        _ports(),
        _backlog(),
        _quiet(),
    ]


def _cores(tiers: Iterable[Tier]) -> Finding:
    fitting = [tier.name for tier in tiers if not too_small(tier)]
    left_out = [tier.name for tier in tiers if too_small(tier)]
    hint = f"more cores for {', '.join(left_out)}: here they are INVALID" if left_out else ""
    return Finding("cores", f"{os.cpu_count()}: enough for {', '.join(fitting) or 'no tier'}", hint)


def _cgroups() -> Finding:
    try:
        return Finding("backend cgroup", f"control groups version {cgroup.version()}")
    except cgroup.Unavailable as error:
        return Finding("backend cgroup", "no", str(error))


def _containers(tiers: Iterable[Tier], root: Path) -> Finding:
    tier = next(iter(tiers), None)
    reason = containers.no_container(root, tier.image) if tier else "the compose file has no tiers"
    return Finding(
        "backend compose",
        "no" if reason else f"image {tier.image if tier else ''}",
        reason and f"{reason}; `just image` builds it",
    )


def _bundles(root: Path) -> Finding:
    found = sorted(
        file.parent.parent.name for file in (root / ".halfcore/bundles").glob("*/*/manifest.json")
    )
    return Finding(
        "models",
        ", ".join(dict.fromkeys(found)) or "none",
        "" if found else "`just examples light` makes them (backend cgroup needs one)",
    )


def _files() -> Finding:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    enough = hard == resource.RLIM_INFINITY or hard >= _USERS + _SPARE_FILES
    return Finding(
        "open files",
        f"at most {hard:,}",
        "" if enough else f"raise ulimit -Hn to {_USERS + _SPARE_FILES:,} for {_USERS:,} users",
    )


def _ports() -> Finding:
    ports = counters.ports()
    hint = "" if ports * 0.7 >= _USERS else "widen net.ipv4.ip_local_port_range"
    return Finding("ports", f"{ports:,} to one address", hint)


def _backlog() -> Finding:
    allowed = int(Path("/proc/sys/net/core/somaxconn").read_text())
    return Finding(
        "accept queue",
        f"net.core.somaxconn {allowed:,}",
        "" if allowed >= 1024 else "raise it to 4096: a ramp of 500 users a second needs it",
    )


def _quiet() -> Finding:
    quiet = machine.watch()
    return Finding(
        "quiet",
        f"others use {quiet.busy_cores:.2f} cores, steal {quiet.steal:.1%}",
        "; ".join(quiet.reasons),
    )
