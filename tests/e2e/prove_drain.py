"""SIGTERM after SIGTERM under clients that keep their connections, ask without a pause and never
ask twice: `just prove-drain`. No request may fail.

One process: what is refused after its listener is closed is no failure. Two servers behind HAProxy:
everything else is one. HAProxy asks no server twice here, either.
"""

import argparse
import random
import signal
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

sys.path.insert(0, str(Path(__file__).parents[1]))  # for support
from support import haproxy
from support.bodies import dumped
from support.bundles import write_bundle
from support.eager import Eager
from support.proof import Check, begin, conclude
from support.serving import Server, free_port, serving

BODIES = [dumped({"features": [number, 1, 0, 0]}) for number in range(50)]
DRAIN_TIMEOUT_S = 25.0
PREDRAIN_S = 1.0
"""HAProxy's checks find a server that is not ready within half of it."""

ALONE = {
    "one process": (1, 0),
    "one process, a connection per request": (1, 1),
    "two workers": (2, 0),
}
"""Kinds of servers and clients: how many workers, and most requests of a connection."""


def right(number: int, answer: Any) -> bool:
    """Whether it is the sum of the row."""
    return bool(answer["prediction"] == number + 1)


@dataclass
class Found:
    """What a number of drains did."""

    drains: int = 0
    answered: int = 0
    announced: int = 0
    """Answers with `Connection: close`."""
    failures: list[str] = field(default_factory=list)
    exits: list[int] = field(default_factory=list)
    took_s: list[float] = field(default_factory=list)

    def add(self, clients: Eager) -> None:
        """Add what clients got."""
        self.answered += clients.answered
        self.announced += clients.closed
        self.failures += clients.failures

    def end(self, server: Server) -> None:
        """End a server by SIGTERM, and note how."""
        self.drains += 1
        began = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        self.exits.append(server.process.wait(DRAIN_TIMEOUT_S + 60))
        self.took_s.append(time.monotonic() - began)

    def checks(self, what: str, most_s: float) -> list[Check]:
        """Against what is allowed."""
        wrong = [code for code in self.exits if code]
        return [
            Check(
                f"{what}: requests failed in {self.drains} drains",
                f"{len(self.failures)} of {self.answered + len(self.failures)}",
                "0",
                not self.failures,
            ),
            Check(f"{what}: exit codes other than 0", str(len(wrong)), "0", not wrong),
            Check(
                f"{what}: longest drain",
                f"{max(self.took_s):.2f} s",
                f"≤ {most_s:g} s",
                max(self.took_s) <= most_s,
            ),
        ]


def main() -> int:
    """Run; 0 if everything held."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--drains", type=int, default=100, help="of each kind")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--seed", type=int, default=1, help="when each SIGTERM is sent")
    arguments = parser.parse_args()
    console = Console()
    begun = begin(console)
    draw = random.Random(arguments.seed)  # noqa: S311  when signals are sent
    found: dict[str, Found] = {}
    with tempfile.TemporaryDirectory() as folder:
        bundles = Path(folder)
        write_bundle(bundles, "sum", task="regression")
        for what, (workers, most) in ALONE.items():
            found[what] = Found()
            for _ in range(arguments.drains):
                alone(found[what], bundles, draw, arguments.clients, workers=workers, most=most)
        if haproxy.missing():
            console.print("not run: two servers behind HAProxy, which is not installed")
        else:
            found["two behind HAProxy"] = behind(bundles, arguments.drains, arguments.clients, draw)
    checks = [
        check
        for what, one_found in found.items()
        for check in one_found.checks(what, DRAIN_TIMEOUT_S)
    ]
    figures = {
        what: {
            "drains": each.drains,
            "answered": each.answered,
            "announced": each.announced,
            "failures": each.failures[:20],
            "took_s": [round(one_s, 3) for one_s in each.took_s],
        }
        for what, each in found.items()
    }
    title = (
        f"{arguments.drains} drains of each kind under {arguments.clients} clients, seed "
        f"{arguments.seed}"
    )
    return conclude(begun, "drain", title, checks, figures, console=console)


def alone(
    found: Found, bundles: Path, draw: random.Random, clients: int, *, workers: int, most: int
) -> None:
    """Start a server, put clients on it, end it."""
    with serving(bundles, drain_timeout_s=DRAIN_TIMEOUT_S, workers=workers) as server:
        eager = Eager(server.port, BODIES, right, clients=clients, most=most)
        with eager.running():
            time.sleep(draw.uniform(0.1, 0.4))
            found.end(server)
        found.add(eager)


def behind(bundles: Path, drains: int, clients: int, draw: random.Random) -> Found:
    """Two servers behind HAProxy, of which one and then the other is ended and started again."""
    found = Found()
    settings = {"drain_timeout_s": DRAIN_TIMEOUT_S, "predrain_s": PREDRAIN_S}
    ports = [free_port(), free_port()]
    stacks = [ExitStack(), ExitStack()]
    with stacks[0], stacks[1], haproxy.balancing(bundles, ports) as balancer:
        servers = [
            stack.enter_context(serving(bundles, port=port, **settings))
            for stack, port in zip(stacks, ports, strict=True)
        ]
        balancer.until([True, True])
        eager = Eager(balancer.port, BODIES, right, clients=clients, stays=True)
        with eager.running():
            for number in range(drains):
                time.sleep(draw.uniform(0.1, 0.4))
                place = number % 2
                found.end(servers[place])
                stacks[place].close()
                servers[place] = stacks[place].enter_context(
                    serving(bundles, port=ports[place], **settings)
                )
                balancer.until([True, True])
        found.add(eager)
    return found


if __name__ == "__main__":
    sys.exit(main())
