"""Open-loop load on a server: so many requests a second whatever it answers, each answer kept, so
that none can be lost unseen."""

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from support.serving import request


@dataclass(frozen=True)
class Sent:
    """One request and what came of it."""

    at_s: float
    """When it was due, by time.monotonic()."""
    latency_s: float
    """From when it was due, so that a client that falls behind does not hide a server that does."""
    status: int
    """0: no answer came."""
    row: int
    answer: Any


@dataclass
class Load:
    """Sends bodies in turn at a steady rate over keep-alive connections.

    Args:
        port: on loopback.
        bodies: of POST /predict.
        rate: requests per second.
        connections: most that are open; a request that finds all busy waits, and its waiting
            counts.
        ids: a beginning of the requests' own ids, which are numbered; empty: they have none.
    """

    port: int
    bodies: Sequence[bytes]
    rate: float = 300.0
    connections: int = 32
    ids: str = ""
    sent: list[Sent] = field(default_factory=list)
    _idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = field(default_factory=list)
    _stop: bool = False

    @contextmanager
    def running(self) -> Iterator["Load"]:
        """Send in a thread while the block runs; every request that was sent is answered, or has
        failed, when it ends."""
        thread = threading.Thread(target=asyncio.run, args=(self._run(),))
        thread.start()
        try:
            yield self
        finally:
            self._stop = True
            thread.join(60)

    def await_sent(self, enough: Callable[[list[Sent]], bool], *, timeout_s: float = 100.0) -> None:
        """Wait until what was sent so far is enough."""
        deadline = time.monotonic() + timeout_s
        while not enough(self.sent):
            assert time.monotonic() < deadline, (
                f"not reached after {len(self.sent)} answers, the last: {self.sent[-1:]}"
            )
            time.sleep(0.02)

    @property
    def failed(self) -> list[Sent]:
        """What was not answered with 200."""
        return [one for one in self.sent if one.status != 200]

    async def _run(self) -> None:
        limit = asyncio.Semaphore(self.connections)
        start = time.monotonic()
        number = 0
        async with asyncio.TaskGroup() as group:
            while not self._stop:
                due = start + number / self.rate
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                group.create_task(self._one(due, number, limit))
                number += 1
        for _, writer in self._idle:
            writer.close()

    async def _one(self, due: float, number: int, limit: asyncio.Semaphore) -> None:
        status, answer, row = 0, None, number % len(self.bodies)
        name = f"{self.ids}-{number}" if self.ids else ""
        async with limit:
            with suppress(OSError, asyncio.IncompleteReadError, TimeoutError, ValueError):
                status, body = await asyncio.wait_for(self._exchange(row, name), 60.0)
                answer = json.loads(body)
        self.sent.append(Sent(due, time.monotonic() - due, status, row, answer))

    async def _exchange(self, row: int, name: str) -> tuple[int, bytes]:
        # The one that has been idle longest: at the other end of the list it would be idle until
        # the server closes it.
        reader, writer = (
            self._idle.pop(0)
            if self._idle
            else await asyncio.open_connection("127.0.0.1", self.port)
        )
        try:
            writer.write(
                request("/predict", self.bodies[row], headers={"x-request-id": name or None})
            )
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
            body = await reader.readexactly(length)
        except BaseException:
            writer.close()
            raise
        self._idle.append((reader, writer))
        return int(head.split(b" ", 2)[1]), body


def percentile(latencies_s: Sequence[float], share: float) -> float:
    """The latency that this share of them does not exceed."""
    ordered = sorted(latencies_s)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
