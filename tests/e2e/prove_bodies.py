"""Thousands of bodies that try to be expensive, against a real server in 256 MiB: `just
prove-bodies`. The exit code tells.

For each body: CPU time of the server compared with a right bulk body of the same length in the same
run, memory that it adds, and how long `GET /health/live` takes meanwhile; in this process also the
longest time that its decoding holds the event loop. Where control groups can be made, the server
runs in one with a limit of 256 MiB and must survive; elsewhere its peak of resident memory must
stay below.
"""

import argparse
import http.client
import sys
import tempfile
import threading
import time
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import msgspec
from rich.console import Console
from rich.progress import track

sys.path.insert(0, str(Path(__file__).parents[1]))  # for support
from halfcore.bundle import Input
from halfcore.pipeline.decode import SHORT_BODY_BYTES, Decoder
from halfcore.pipeline.schema import Schema
from halfcore.problem import Problem
from loadlab.record import cgroup
from loadlab.record.cgroup import Limits
from loadlab.target.process import control_group
from support.bundles import MIXED, NUMBERS, write_bundle
from support.expensive_bodies import KINDS, random_source, right_records, right_vectors
from support.proof import Check, begin, conclude
from support.serving import Server, serving

MOST_TIMES_RIGHT = 10.0
MOST_HELD_S = 0.05
MOST_HEALTH_S = 0.2
MOST_TIMES_LENGTH = 8.0
SPARE_BYTES = 4 << 20
"""Of resident memory: what the allocator rounds up to, and the answer to 10,000 rows."""
LIMIT_BYTES = 256 << 20
_UNTIMED = ("memory added", "answers 5xx")
"""Checks that hold on a machine of any speed."""
REPEATS = 4
"""Of a body that seems expensive: the least counts, for the machine disturbs only in one
direction."""
MODELS = {
    "numbers": NUMBERS,
    "mixed": MIXED,
    "wide": [
        {"name": f"column_{i}", "kind": "number", "nullable": False, "example": 1.0}
        for i in range(54)
    ],
}
LENGTHS = (1_000, 4_000, 16_000, 64_000, 256_000, 1_000_000, 4_000_000)


@dataclass
class Found:
    """One body and what it took."""

    model: str
    kind: str
    length: int
    cpu_s: float
    times: float
    held_s: float
    added_bytes: int
    status: int

    def __str__(self) -> str:
        where = f"{self.kind}, {self.length:,} bytes, model {self.model}, status {self.status}"
        cpu = f"{self.cpu_s * 1e3:.2f} ms CPU, {self.times:.1f} × a right body"
        return (
            f"{where}: {cpu}, held {self.held_s * 1e3:.1f} ms, {self.added_bytes / 1e6:.1f} MB "
            "added"
        )


@dataclass
class Peer:
    """The server under test, seen from outside."""

    port: int
    pid: int
    connection: http.client.HTTPConnection = field(init=False)

    def __post_init__(self) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)

    def cpu_s(self) -> float:
        """CPU time of the whole process."""
        return time.clock_gettime((~self.pid << 3) | 2)  # as clock_getcpuclockid(3) makes it

    def memory(self, name: str) -> int:
        """VmRSS or VmHWM, bytes."""
        text = Path(f"/proc/{self.pid}/status").read_text()
        return int(text.split(f"{name}:")[1].split()[0]) << 10

    def forget_peak(self) -> None:
        """Let VmHWM begin anew."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")

    def ask(self, model: str, body: bytes) -> tuple[int, float]:
        """Status, and the server's CPU time for it."""
        before = self.cpu_s()
        try:
            self.connection.request(
                "POST", f"/models/{model}/predict", body, {"content-type": "application/json"}
            )
            answer = self.connection.getresponse()
            answer.read()
        except (http.client.HTTPException, OSError):
            self.connection.close()
            raise
        return answer.status, self.cpu_s() - before


class Health:
    """Asks `GET /health/live` all the time, on a connection of its own."""

    def __init__(self, port: int) -> None:
        self.longest_s = 0.0
        self.asked = self.failed = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(port,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(30)

    def _run(self, port: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        while not self._stop.wait(0.02):
            start = time.perf_counter()
            try:
                connection.request("GET", "/health/live")
                answer = connection.getresponse()
                self.failed += answer.status != 200
                answer.read()
            except (http.client.HTTPException, OSError):
                self.failed += 1
                connection.close()
            self.longest_s = max(self.longest_s, time.perf_counter() - start)
            self.asked += 1


class RightBodies:
    """What right bulk bodies of a model cost, by their length."""

    def __init__(self, peer: Peer, model: str, columns: list[dict[str, Any]]) -> None:
        self._costs: list[tuple[int, float]] = []
        for length in LENGTHS:
            bodies = [
                make(columns, length, random_source(1)) for make in (right_records, right_vectors)
            ]
            costs = []
            for body in bodies:
                times = []
                for _ in range(REPEATS):
                    status, cpu_s = peer.ask(model, body)
                    assert status == 200, f"a right body of {len(body)} bytes was answered {status}"
                    times.append(cpu_s)
                costs.append((len(body), min(times)))
            # The cheaper of the two forms for its length: the stricter measure.
            self._costs.append(min(costs, key=lambda cost: cost[1] / cost[0]))

    def cost_s(self, length: int) -> float:
        """CPU time of a right body of this length: interpolated, and beyond 10,000 rows in
        proportion."""
        lengths = [size for size, _ in self._costs]
        i = min(max(1, bisect_left(lengths, length)), len(lengths) - 1)
        (l0, c0), (l1, c1) = self._costs[i - 1], self._costs[i]
        if length >= l1 or l1 == l0:
            return c1 * max(1.0, length / l1)
        return c0 + (c1 - c0) * max(0, length - l0) / (l1 - l0)


def held_s(decoder: Decoder, body: bytes) -> float:
    """The longest time between two pauses of a body's decoding."""
    longest = 0.0
    steps = decoder.steps(body)
    short = len(body) <= SHORT_BODY_BYTES
    while True:
        start = time.thread_time()
        try:
            if short:
                decoder.decode(body)
                return time.thread_time() - start
            next(steps)
        except StopIteration:
            return max(longest, time.thread_time() - start)
        except Problem as problem:
            problem.body()
            return max(longest, time.thread_time() - start)
        longest = max(longest, time.thread_time() - start)


@contextmanager
def limited(folder: Path) -> Iterator[tuple[Server, bool]]:
    """A server of the models, in a control group of 256 MiB where that is possible."""
    settings: dict[str, Any] = {"max_connections": 1_000, "workers": 1}
    with ExitStack() as stack:
        try:
            group = stack.enter_context(control_group("bodies", Limits(memory_bytes=LIMIT_BYTES)))
        except cgroup.Unavailable:
            yield stack.enter_context(serving(folder, **settings)), False
        else:
            yield stack.enter_context(serving(folder, wrap=group.wrap, **settings)), True


def main() -> int:
    """Run; 0 if everything held."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bodies", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--smoke",
        action="store_true",
        help="360 bodies; what depends on the machine's speed is shown and not judged",
    )
    arguments = parser.parse_args()
    count = 360 if arguments.smoke else arguments.bodies
    with tempfile.TemporaryDirectory() as scratch:
        for name, columns in MODELS.items():
            write_bundle(Path(scratch), name, inputs=columns, changes={"named": True})
        with limited(Path(scratch)) as (server, in_group):
            return prove(
                server, count, arguments.seed, in_group=in_group, timed=not arguments.smoke
            )


def prove(server: Server, count: int, seed: int, *, in_group: bool, timed: bool) -> int:
    """Send the bodies and judge."""
    console = Console()
    begun = begin(console)
    peer = Peer(server.port, server.process.pid)
    right = {name: RightBodies(peer, name, columns) for name, columns in MODELS.items()}
    decoders = {
        name: Decoder(Schema(msgspec.convert(columns, list[Input]), "float32"), max_rows=10_000)
        for name, columns in MODELS.items()
    }
    rng = random_source(seed)
    kinds = list(KINDS.items())
    found: list[Found] = []
    with Health(server.port) as health:
        for number in track(range(count), "bodies", console=console):
            kind, make = kinds[number % len(kinds)]
            model = rng.choice(list(MODELS))
            body = make(MODELS[model], int(1_000 * 4_000 ** rng.random()), rng)[: 4 << 20]
            found.append(_measure(peer, right[model], decoders[model], model, kind, body))
    alive = server.process.poll() is None
    peak = peer.memory("VmHWM") if alive else 0
    where = "in a control group of 256 MiB" if in_group else "no control group could be made"
    checks, figures = _judge(found, health)
    if not timed:
        checks = [
            check if check.name in _UNTIMED else check._replace(held=True, allowed="not judged")
            for check in checks
        ]
    checks.append(
        Check("the server lives", f"{alive}, {where}", "True", alive and peak < LIMIT_BYTES)
    )
    title = f"{count:,} bodies of 1 kB to 4 MB that try to be expensive"
    return conclude(begun, "bodies", title, checks, figures, console=console)


def _measure(
    peer: Peer, right: RightBodies, decoder: Decoder, model: str, kind: str, body: bytes
) -> Found:
    peer.forget_peak()
    resident = peer.memory("VmRSS")
    status, cpu_s = peer.ask(model, body)
    added = max(0, peer.memory("VmHWM") - resident)
    cost_s = right.cost_s(len(body))
    for _ in range(REPEATS):
        if cpu_s <= MOST_TIMES_RIGHT / 2 * cost_s:
            break
        cpu_s = min(cpu_s, peer.ask(model, body)[1])
    held = held_s(decoder, body)
    if held > MOST_HELD_S / 2:
        held = min([held, *(held_s(decoder, body) for _ in range(REPEATS))])
    return Found(model, kind, len(body), cpu_s, cpu_s / cost_s, held, added, status)


def _judge(found: list[Found], health: Health) -> tuple[list[Check], dict[str, Any]]:
    slowest = max(found, key=lambda one: one.times)
    longest = max(found, key=lambda one: one.held_s)
    largest = max(
        found, key=lambda one: one.added_bytes / (MOST_TIMES_LENGTH * one.length + SPARE_BYTES)
    )
    allowed = int(MOST_TIMES_LENGTH * largest.length) + SPARE_BYTES
    failed = sum(one.status >= 500 for one in found)
    asked = (
        f"{health.asked:,} asked, {health.failed} failed, longest {health.longest_s * 1e3:.0f} ms"
    )
    checks = [
        Check(
            "CPU time",
            f"{slowest.times:.1f} × a right body",
            f"{MOST_TIMES_RIGHT:g} ×",
            slowest.times <= MOST_TIMES_RIGHT,
        ),
        Check(
            "event loop",
            f"held {longest.held_s * 1e3:.1f} ms",
            f"{MOST_HELD_S * 1e3:g} ms",
            longest.held_s <= MOST_HELD_S,
        ),
        Check(
            "memory added",
            f"{largest.added_bytes:,} bytes",
            f"{allowed:,} bytes",
            largest.added_bytes <= allowed,
        ),
        Check(
            "/health/live",
            asked,
            f"{MOST_HEALTH_S * 1e3:g} ms",
            health.longest_s <= MOST_HEALTH_S and not health.failed,
        ),
        Check("answers 5xx", str(failed), "0", not failed),
    ]
    worst = sorted(found, key=lambda one: -one.times)[:20]
    figures = {
        "most_cpu": str(slowest),
        "longest_hold": str(longest),
        "most_memory": str(largest),
        "worst_by_cpu": [str(one) for one in worst],
    }
    return checks, figures


if __name__ == "__main__":
    sys.exit(main())
