"""One worker of two is killed, again and again, under some 300 requests/s: `just prove-deaths`.
Requests on connections of the other one may not fail, and two workers accept again in time."""

import argparse
import os
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console

sys.path.insert(0, str(Path(__file__).parents[1]))  # for support
from support.bodies import dumped
from support.bundles import write_bundle
from support.eager import Eager
from support.processes import clients_of, listening, until
from support.proof import Check, begin, conclude
from support.serving import Server, serving

BODIES = [dumped({"features": [number, 1, 0, 0]}) for number in range(50)]
LONGEST_S = 2.0


def right(number: int, answer: Any) -> bool:
    """Whether it is the sum of the row."""
    return bool(answer["prediction"] == number + 1)


def main() -> int:
    """Run; 0 if everything held."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--short", action="store_true", help="three kills; judge no time")
    arguments = parser.parse_args()
    total = 3 if arguments.short else arguments.kills
    console = Console()
    begun = begin(console)
    with tempfile.TemporaryDirectory() as folder:
        bundles = Path(folder)
        write_bundle(bundles, "sum", task="regression")
        with serving(bundles, workers=2) as server:
            until(lambda: len(listening(server)) == 2, "two workers")
            eager = Eager(
                server.port, BODIES, right, arguments.clients, stays=True, most=50, pause_s=0.05
            )
            with eager.running():
                kills = [_kill(server, eager) for _ in range(total)]
            code = server.stop()
    others = [number for number, _ in kills]
    took_s = [seconds for _, seconds in kills]
    checks = [
        Check(
            f"requests of the other worker that failed in {total} deaths",
            f"{sum(others)} of {eager.answered}",
            "0",
            not sum(others),
        ),
        Check(
            "longest time until two workers accept again",
            f"{max(took_s):.2f} s",
            "not judged" if arguments.short else f"≤ {LONGEST_S:g} s",
            arguments.short or max(took_s) <= LONGEST_S,
        ),
        Check("exit code", str(code), "0", code == 0),
    ]
    figures = {"answered": eager.answered, "took_s": [round(one_s, 3) for one_s in took_s]}
    title = f"{total} times SIGKILL of one worker of two, {arguments.clients} clients"
    return conclude(begun, "deaths", title, checks, figures, console=console)


def _kill(server: Server, eager: Eager) -> tuple[int, float]:
    """Kill the older worker; return how many requests of the other one failed, and after how many
    seconds there were two again."""
    until(lambda: eager.connected() == eager.clients, "all clients are connected")
    killed, other = listening(server)
    until(lambda: len(clients_of(server, other)) > 0, "both workers have clients")
    safe = clients_of(server, other)
    began = time.monotonic()
    os.kill(killed, signal.SIGKILL)
    until(
        lambda: killed not in listening(server) and len(listening(server)) == 2, "two workers again"
    )
    seconds = time.monotonic() - began
    return len(safe & eager.lost), seconds


if __name__ == "__main__":
    sys.exit(main())
