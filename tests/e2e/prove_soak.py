"""A long run of a real server with swaps and clients that leave: `just prove-soak`. The exit code
tells.

Keep-alive clients send predictions at 70 % of what the server can answer here; each hundredth
request is sent on a connection of its own that is reset at once; the served version changes every
half minute. Every answer must be the one of the version that it names.

Resident memory must not grow with the requests: the slope (Theil-Sen, which single peaks do not
move) over the samples after the first fifth of the run. Descriptors and threads must be as many at
the end as then, but for a few (`SPARE_DESCRIPTORS`, `SPARE_THREADS`). A second, shorter run has a
server that keeps 100 bytes of each request, and must be found out by the same rule.
"""

import argparse
import asyncio
import os
import socket
import struct
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import orjson
from rich.console import Console
from rich.progress import Progress
from scipy.stats import theilslopes

sys.path.insert(0, str(Path(__file__).parents[1]))  # for support
from support.fake_registry import FakeRegistry, fake_registry
from support.proof import Check, begin, conclude
from support.serving import Server, request, serving
from support.versions import BODIES, expected, write_version

MOST_MB_PER_MILLION = 2.0
BAR = f"≤ {MOST_MB_PER_MILLION:g} MB"
CONNECTIONS = 32
LOAD_SHARE = 0.7
LEAVER_EVERY = 100
VERSIONS = 4
SWAP_S = 30.0
SAMPLE_S = 2.0
MEASURE_S = 10.0
WARM_UP_SHARE = 0.2
SPARE_DESCRIPTORS = 8
"""Connections that open and close between two looks."""
SPARE_THREADS = 2
"""A pool of the registry's, or asyncio's own, starts one more when two of its calls overlap for the
first time, which on a busy machine may be late; a thread that each swap left would be many more."""
LEAK_BYTES = 100
FAULTY = Path(__file__).parents[1] / "support/faulty"
_RESET = struct.pack("ii", 1, 0)


class Sampled(NamedTuple):
    """The server at one moment."""

    requests: int
    resident_bytes: int
    descriptors: int
    threads: int


class Clients:
    """Keep-alive clients, in this process.

    Attributes:
        answered: right answers so far.
        left: requests whose client left at once.
        failed: what was wrong with each other one.
        rate: requests a second of all together; 0: as many as are answered.
    """

    def __init__(self, port: int) -> None:
        self.answered = self.left = 0
        self.failed: list[str] = []
        self.rate = 0.0
        self._port = port

    async def run(self, seconds: float) -> None:
        """Send for so long."""
        end = time.monotonic() + seconds
        async with asyncio.TaskGroup() as group:
            for number in range(CONNECTIONS):
                group.create_task(self._client(number, end))

    async def _client(self, number: int, end: float) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        sent = 0
        while (now := time.monotonic()) < end:
            row = (sent * CONNECTIONS + number) % len(BODIES)
            try:
                await self._exchange(reader, writer, row)
            except (OSError, asyncio.IncompleteReadError) as error:
                self.failed.append(repr(error))
                reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
            sent += 1
            if sent % LEAVER_EVERY == 0:
                self._leave(row)
            if self.rate:
                await asyncio.sleep(max(0.0, now + CONNECTIONS / self.rate - time.monotonic()))
        writer.close()

    async def _exchange(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, row: int
    ) -> None:
        writer.write(request("/predict", BODIES[row]))
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        answer = orjson.loads(await reader.readexactly(length))
        if head[9:12] != b"200":
            self.failed.append(str(answer))
        elif answer["prediction"] != expected(answer["version"], row):
            self.failed.append(f"row {row}: {answer}")
        else:
            self.answered += 1

    def _leave(self, row: int) -> None:
        """Send a request, and reset the connection."""
        with socket.create_connection(("127.0.0.1", self._port), timeout=60) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            connection.sendall(request("/predict", BODIES[row]))
        self.left += 1


async def soak(
    server: Server, registry: FakeRegistry, seconds: float, progress: Progress, title: str
) -> tuple[Clients, list[Sampled], int]:
    """Put the load on, swap and look; returns the clients, what was seen, and how many swaps."""
    clients, samples, swaps = Clients(server.port), [], 0
    await clients.run(MEASURE_S)
    clients.rate = LOAD_SHARE * clients.answered / MEASURE_S
    task = progress.add_task(title, total=seconds)
    load = asyncio.create_task(clients.run(seconds))
    start = swapped = time.monotonic()
    while not load.done():
        await asyncio.wait([load], timeout=SAMPLE_S)
        samples.append(sampled(server.process.pid, clients.answered + clients.left))
        if time.monotonic() - swapped > SWAP_S:
            swapped, swaps = time.monotonic(), swaps + 1
            registry.point("numbers", str(1 + swaps % VERSIONS))
        progress.update(task, completed=time.monotonic() - start)
    await load
    return clients, samples, swaps


def sampled(pid: int, requests: int) -> Sampled:
    """A look at a process."""
    resident = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return Sampled(
        requests,
        resident,
        len(list(Path(f"/proc/{pid}/fd").iterdir())),
        len(list(Path(f"/proc/{pid}/task").iterdir())),
    )


def settled(samples: list[Sampled]) -> list[Sampled]:
    """Those after the first fifth."""
    return samples[int(WARM_UP_SHARE * len(samples)) :]


def mb_per_million(samples: list[Sampled]) -> float:
    """By how much resident memory grows, MB per million requests."""
    kept = settled(samples)
    slope = theilslopes([one.resident_bytes for one in kept], [one.requests for one in kept]).slope
    return float(slope)  # bytes per request are MB per million


@contextmanager
def running(folder: Path, fault: str = "") -> Iterator[tuple[Server, FakeRegistry]]:
    """A server that follows a registry of several versions."""
    with fake_registry() as registry:
        for version in range(1, VERSIONS + 1):
            registry.publish(write_version(folder / "exported", version, megabytes=1.0))
        registry.point("numbers", "1")
        planted = {"FAULT": fault, "FAULT_FROM": str(folder), "PYTHONPATH": str(FAULTY)}
        before = {name: os.environ.get(name) for name in planted}
        if fault:
            os.environ |= planted
        try:
            with serving(
                folder / "none",
                store=folder / "store",
                follow="models:/numbers@champion",
                tracking_uri=registry.url,
                follow_period_s=1.0,
            ) as server:
                yield server, registry
        finally:
            for name, value in before.items() if fault else ():
                os.environ.pop(name)
                if value is not None:
                    os.environ[name] = value


def prove(minutes: float) -> int:
    """Both runs, and the judgement."""
    console = Console()
    begun = begin(console)
    seconds = 60.0 * minutes
    with Progress(console=console) as progress, tempfile.TemporaryDirectory() as folder:
        with running(Path(folder) / "sound") as (server, registry):
            clients, samples, swaps = asyncio.run(
                soak(server, registry, seconds, progress, "the server")
            )
            ended = server.stop()
        fault = f"leak:{LEAK_BYTES}"
        with running(Path(folder) / "planted", fault) as (server, registry):
            short = max(60.0, seconds / 10)
            _, leaking, _ = asyncio.run(soak(server, registry, short, progress, "a planted leak"))
    grown, planted = mb_per_million(samples), mb_per_million(leaking)
    checks = [*judged(clients, samples, grown, ended), control(planted)]
    last = samples[-1]
    figures = {
        "minutes": minutes,
        "requests": last.requests,
        "requests_per_s": clients.rate,
        "left": clients.left,
        "swaps": swaps,
        "failed": clients.failed[:20],
        "mb_per_million": grown,
        "planted_mb_per_million": planted,
        "samples": [one._asdict() for one in samples[:: max(1, len(samples) // 200)]],
    }
    title = f"{minutes:g} minutes, {last.requests:,} requests, {swaps} swaps"
    return conclude(begun, "soak", title, checks, figures, console=console)


def judged(clients: Clients, samples: list[Sampled], grown: float, ended: int) -> Iterator[Check]:
    """What must hold of the server."""
    first, last = settled(samples)[0], samples[-1]
    failed = f"{len(clients.failed)} of {last.requests:,}"
    yield Check("requests that failed", failed, "0", not clients.failed)
    yield Check(
        "memory per million requests", f"{grown:+.2f} MB", BAR, grown <= MOST_MB_PER_MILLION
    )
    yield Check(
        "descriptors",
        f"{first.descriptors} → {last.descriptors}",
        f"{SPARE_DESCRIPTORS} more",
        last.descriptors <= first.descriptors + SPARE_DESCRIPTORS,
    )
    threads = f"{first.threads} → {last.threads}"
    yield Check(
        "threads",
        threads,
        f"{SPARE_THREADS} more",
        last.threads <= first.threads + SPARE_THREADS,
    )
    yield Check("exit code after SIGTERM", str(ended), "0", ended == 0)


def control(planted: float) -> Check:
    """The rule must find a planted leak."""
    return Check(
        f"the same of a server that keeps {LEAK_BYTES} bytes of each request",
        f"{planted:+.2f} MB",
        f"not {BAR}",
        planted > MOST_MB_PER_MILLION,
    )


def main() -> int:
    """Run; 0 if everything held."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    return prove(parser.parse_args().minutes)


if __name__ == "__main__":
    sys.exit(main())
