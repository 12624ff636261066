"""How a long proof ends: what was found against what is allowed, as a table, an exit code and a
file."""

import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from rich.console import Console
from rich.table import Table

from loadlab.record import cgroup, machine
from support.proven import MEASURED

ROOT = Path(__file__).parents[2]
STORE = ROOT / ".halfcore/proofs"


class Check(NamedTuple):
    """One figure against its limit."""

    name: str
    found: str
    allowed: str
    held: bool


class Proof(msgspec.Struct, frozen=True, kw_only=True):
    """A proof as it is stored."""

    what: str
    title: str
    started_at: str
    """UTC, ISO 8601."""
    command: str
    fingerprint: machine.Fingerprint
    quiet: machine.Quiet
    """How busy the machine was with others before it."""
    checks: list[Check]
    figures: dict[str, Any]


class Begun(NamedTuple):
    """When a proof began, of which code, and on how busy a machine."""

    at: datetime
    quiet: machine.Quiet
    fingerprint: machine.Fingerprint


def begin(console: Console) -> Begun:
    """Look at the machine; a busy one is said, not refused: what must never fail may not fail there
    either."""
    fingerprint = machine.fingerprint(ROOT, {}, 0, cgroup_version=_cgroup_version())
    begun = Begun(datetime.now(UTC), machine.watch(), fingerprint)
    for reason in begun.quiet.reasons:
        console.print(f"the machine is not quiet, latencies are doubtful: {reason}", style="yellow")
    return begun


def conclude(
    begun: Begun,
    what: str,
    title: str,
    checks: list[Check],
    figures: dict[str, Any],
    *,
    console: Console,
    store: Path = STORE,
) -> int:
    """Show a proof, and store it in a folder; 0 if everything held."""
    table = Table(title=title)
    for heading in ("", "found", "allowed", ""):
        table.add_column(heading)
    for name, found, allowed, held in checks:
        table.add_row(name, found, allowed, "held" if held else "[red]broken[/]")
    console.print(table)
    proof = Proof(
        what=what,
        title=title,
        started_at=begun.at.isoformat(timespec="seconds").replace("+00:00", "Z"),
        command=" ".join(["python", *sys.argv]).replace(f"{ROOT}/", ""),
        fingerprint=begun.fingerprint,
        quiet=begun.quiet,
        checks=checks,
        figures=figures,
    )
    store.mkdir(parents=True, exist_ok=True)
    file = (
        store
        / f"{begun.at:%Y-%m-%d-%H%M%S}-{what}-{proof.fingerprint.commit[:8] or 'nocommit'}.json"
    )
    file.write_bytes(msgspec.json.format(msgspec.json.encode(proof), indent=1) + b"\n")
    console.print(f"stored in {file.relative_to(ROOT)}", soft_wrap=True)
    if measured := os.environ.get(MEASURED):
        text = "; ".join(f"{name}: {found} ({allowed})" for name, found, allowed, _ in checks)
        Path(measured).write_text(text)
    return 0 if all(check.held for check in checks) else 1


def _cgroup_version() -> int:
    """0 where there are none: a proof needs none."""
    try:
        return cgroup.version()
    except cgroup.Unavailable:
        return 0
