"""Clients that try to take the memory of a server in 240 MiB, together with 200 good requests/s:
`just prove-memory`. The server must not be killed, and no good request may fail.

Needs root and control groups, for the limit; the exit code is 0 if everything held.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable
from pathlib import Path
from typing import NamedTuple

from rich.console import Console

sys.path.insert(0, str(Path(__file__).parents[1]))  # for support
from loadlab.record.cgroup import Group, Limits
from loadlab.target.process import control_group
from support.attacks import ATTACKS, Attackers
from support.bundles import write_bundle
from support.client import parsed
from support.load import Load, Sent, percentile
from support.proof import Check, begin, conclude
from support.serving import Server, request, serving

LIMIT_BYTES = 240 << 20
RATE = 200.0
OK = 200
CLIENTS, SECONDS = 200, 12.0
SHORT_CLIENTS, SHORT_SECONDS = 60, 2.0
QUIET_S = 20.0
"""Longest time until everything that was reserved is released, seconds: a body may take 10."""


class Found(NamedTuple):
    """What one attack did."""

    name: str
    peak_bytes: int
    answers: dict[int, int]
    alive: bool
    left_bytes: float
    """Reserved after the attackers had left."""
    failed: dict[str, int]
    """What good requests got meanwhile that was not 200 → how many."""

    def __str__(self) -> str:
        answers = ", ".join(
            f"{n} × {status or 'none'}" for status, n in sorted(self.answers.items())
        )
        end = "" if self.alive else ", THE SERVER WAS KILLED"
        failed = f", good requests failed: {self.failed}" if self.failed else ""
        return f"{self.name}: peak {self.peak_bytes / 2**20:.0f} MiB, {answers}{failed}{end}"


def main() -> int:
    """Run all attacks against one server, and show what they did."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("attacks", nargs="*", help="names of attacks; all without any")
    parser.add_argument("--clients", type=int, default=CLIENTS, help="of each attack at a time")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="that each client stays")
    parser.add_argument(
        "--short",
        action="store_true",
        help="fewer clients, for less time; requests that fail are shown, not judged",
    )
    given = parser.parse_args()
    if given.short:
        given.clients, given.seconds = SHORT_CLIENTS, SHORT_SECONDS
    console = Console()
    begun = begin(console)
    with tempfile.TemporaryDirectory() as folder:
        write_bundle(Path(folder))
        found, load = attacked(Path(folder), given, console)
    return conclude(
        begun,
        "memory",
        f"attacks on the memory of a server in {LIMIT_BYTES >> 20} MiB, {given.clients} clients",
        judged(found, load, short=given.short),
        {one.name: one._asdict() | {"answers": str(one.answers)} for one in found},
        console=console,
    )


def attacked(
    bundles: Path, given: argparse.Namespace, console: Console
) -> tuple[list[Found], Load]:
    """Every attack in turn against one server, while the good requests go on."""
    attacks = [one for one in ATTACKS if not given.attacks or one.__name__ in given.attacks]
    limits, found = Limits(memory_bytes=LIMIT_BYTES), []
    with (
        control_group("memory", limits) as group,
        serving(bundles, wrap=group.wrap, webhook_secret="s", log_level="warning") as server,
    ):
        load = Load(server.port, [b'{"features":[1,2,3,4]}'], rate=RATE)
        with load.running():
            for attack in attacks:
                attackers = Attackers(server.port, given.clients, given.seconds)
                before = len(load.sent)
                peak = asyncio.run(_watched(attackers.run(attack), group))
                alive = server.process.poll() is None
                left = released(server) if alive else 0.0
                failed = Counter(_outcome(one) for one in load.sent[before:] if one.status != OK)
                answers = dict(attackers.answers)
                found.append(Found(attack.__name__, peak, answers, alive, left, dict(failed)))
                console.print(str(found[-1]), highlight=False)
                if not alive:
                    break
    return found, load


def _outcome(one: Sent) -> str:
    code = one.answer.get("code", "") if isinstance(one.answer, dict) else ""
    return f"{one.status or 'no answer'} {code}".strip()


async def _watched(attack: Awaitable[None], group: Group) -> int:
    """Run an attack; return the group's largest memory meanwhile."""
    peak, running = 0, asyncio.ensure_future(attack)
    while not running.done():
        memory = group.memory()
        kinds = memory.kinds
        peak = max(peak, memory.current_bytes - kinds.get("cache", kinds.get("file", 0)))
        await asyncio.wait((running,), timeout=0.02)
    return peak


def released(server: Server) -> float:
    """Bytes that are reserved once no large request is in progress any more."""
    deadline = time.monotonic() + QUIET_S
    while True:
        text = server.send(request("/metrics", method="GET")).partition(b"\r\n\r\n")[2].decode()
        left = parsed(text)[("halfcore_bytes_in_flight",)]
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.1)


def judged(found: list[Found], load: Load, *, short: bool) -> list[Check]:
    """What must hold. On a slow machine everybody's bodies arrive slowly, good ones too, and may be
    given up; so the short form does not judge those that fail."""
    killed = [one.name for one in found if not one.alive]
    kept = [one.name for one in found if one.left_bytes]
    good = f"{len(load.failed)} of {len(load.sent):,}"
    p99_ms = percentile([one.latency_s for one in load.sent], 0.99) * 1e3
    return [
        Check("killed by", ", ".join(killed) or "none", "none", not killed),
        Check("good requests failed", good, "" if short else "0", short or not load.failed),
        Check("good requests, p99", f"{p99_ms:.0f} ms", "", held=True),
        Check("memory still reserved after", ", ".join(kept) or "none", "none", not kept),
    ]


if __name__ == "__main__":
    sys.exit(main())
