"""Clients that ask again as soon as they are answered, on connections that they keep, and never
ask twice: whatever they do not get is counted."""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from support.serving import request


@dataclass
class Eager:
    """A number of clients without think time.

    Args:
        port: on loopback.
        bodies: of POST /predict, in turn.
        right: whether the answer to the body with this index is the right one.
        clients: each with a connection.
        stays: whether a refused connection is a failure; otherwise it ends the client, because the
            listener is closed.
    """

    port: int
    bodies: Sequence[bytes]
    right: Callable[[int, Any], bool]
    clients: int = 16
    stays: bool = False
    pause_s: float = 0.0
    """Before each request."""
    most: int = 0
    """Requests after which a client opens another connection; 0: it keeps its connection."""
    answered: int = 0
    closed: int = 0
    """Answers that announced the end of their connection."""
    refused: int = 0
    failures: list[str] = field(default_factory=list)
    lost: set[int] = field(default_factory=set)
    """Their own ports of the connections on which a request failed."""
    _open: set[int] = field(default_factory=set)
    _stop: bool = False

    @contextmanager
    def running(self) -> Iterator["Eager"]:
        """Ask in a thread while the block runs; every request has ended after it."""
        thread = threading.Thread(target=asyncio.run, args=(self._run(),))
        thread.start()
        try:
            yield self
        finally:
            self._stop = True
            thread.join(120)

    def connected(self) -> int:
        """How many clients have a connection."""
        return len(self._open)

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(self.clients):
                group.create_task(self._client(number))

    async def _client(self, number: int) -> None:
        while not self._stop:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            except OSError as error:
                self.refused += 1
                if not self.stays:
                    return
                self.failures.append(f"not connected: {error}")
                continue
            own = writer.get_extra_info("sockname")[1]
            self._open.add(own)
            try:
                if not await self._ask_on(number, reader, writer):
                    self.lost.add(own)
            finally:
                self._open.discard(own)
                writer.close()
                with suppress(OSError):
                    await writer.wait_closed()

    async def _ask_on(
        self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        """Ask until the connection or the time ends; returns whether the last request was
        answered."""
        sent = 0
        while not self._stop and (not self.most or sent < self.most):
            sent += 1
            if self.pause_s:
                await asyncio.sleep(self.pause_s)
            number = (number + 1) % len(self.bodies)
            try:
                head, body = await asyncio.wait_for(self._exchange(number, reader, writer), 60.0)
            except (OSError, asyncio.IncompleteReadError, TimeoutError) as error:
                self.failures.append(f"{type(error).__name__}: {error}")
                return False
            if not head.startswith(b"HTTP/1.1 200 ") or not self.right(number, json.loads(body)):
                self.failures.append((head + body).decode("latin-1"))
            else:
                self.answered += 1
            if b"connection: close" in head.lower():
                self.closed += 1
                break
        return True

    async def _exchange(
        self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> tuple[bytes, bytes]:
        writer.write(request("/predict", self.bodies[number]))
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        return head, await reader.readexactly(length)
