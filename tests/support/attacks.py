"""Clients that try to take a server's memory: they send slowly, do not read, or ask for much."""

import asyncio
import gzip
import re
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field

from support.serving import request

ROWS_900 = b"[" + b",".join([b"[1,2,3,4]"] * 900) + b"]"
LARGE = b'{"features":[' + b"1" * 3_900_000
"""Of a body that is announced as 4,000,000 bytes."""
PAUSE_S = 0.05
"""Seconds until a client that was refused comes again."""
Attack = Callable[["Attackers"], Awaitable[None]]


@dataclass
class Attackers:
    """Many clients of one kind at a time.

    Args:
        port: on loopback.
        clients: of each attack.
        seconds: that one client stays, if the server lets it.
    """

    port: int
    clients: int
    seconds: float
    answers: Counter[int] = field(default_factory=Counter)
    """Status → answers; 0: none."""

    async def run(self, attack: Attack) -> None:
        """Let all clients attack at once."""
        await asyncio.gather(*(self._one(attack) for _ in range(self.clients)))

    async def _one(self, attack: Attack) -> None:
        with suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
            async with asyncio.timeout(self.seconds):
                await attack(self)

    async def sends(self, *parts: bytes, pause_s: float = 0.0) -> None:
        """Send these, then wait for an answer; it is counted."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        status = 0
        try:
            with suppress(ConnectionError):
                for part in parts:
                    writer.write(part)
                    await writer.drain()
                    await asyncio.sleep(pause_s)
            head = await reader.readuntil(b"\r\n\r\n")
            status = int(re.findall(rb"HTTP/1.1 (\d+)", head)[0])
        finally:
            self.answers[status] += 1
            writer.transport.abort()

    async def does_not_read(self, *requests: bytes) -> None:
        """Send these, and read none of the answers."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 12)
        try:
            for one in requests:
                writer.write(one)
            await writer.drain()
            await asyncio.sleep(self.seconds)
        finally:
            self.answers[0] += 1
            writer.transport.abort()
        del reader


def _head(path: str, **headers: str | None) -> bytes:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return request(path, b"", headers=named)


async def stalled_bodies(to: Attackers) -> None:
    """3.9 of 4 MB, and no more."""
    await to.sends(_head("/predict", content_length="4000000"), LARGE)


async def stalled_chunks(to: Attackers) -> None:
    """The same without a length."""
    head = _head("/predict", content_length=None, transfer_encoding="chunked")
    await to.sends(head, b"%x\r\n" % len(LARGE), LARGE)


async def tiny_chunks(to: Attackers) -> None:
    """100,000 chunks of one byte, and no more."""
    head = _head("/predict", content_length=None, transfer_encoding="chunked")
    await to.sends(head, *[b"1\r\n1\r\n" * 1000] * 100)


async def tiny_packets(to: Attackers) -> None:
    """A small body, byte by byte, again and again."""
    while True:
        with suppress(OSError, asyncio.IncompleteReadError):
            await to.sends(_head("/predict", content_length="8000"), *[b" "] * 8000)
        await asyncio.sleep(PAUSE_S)


async def tiny_packets_of_a_large_body(to: Attackers) -> None:
    """A large body, byte by byte."""
    await to.sends(_head("/predict", content_length="4000000"), *[b" "] * 20_000)


async def stalled_webhooks(to: Attackers) -> None:
    """To the registry's webhook, without a signature."""
    await to.sends(_head("/webhooks/mlflow", content_length="9000000"), LARGE)


async def stalled_webhook_chunks(to: Attackers) -> None:
    """The same without a length."""
    head = _head("/webhooks/mlflow", content_length=None, transfer_encoding="chunked")
    await to.sends(head, b"%x\r\n" % len(LARGE), LARGE)


async def many_rows(to: Attackers) -> None:
    """900 rows, again and again."""
    for _ in range(5):
        await to.sends(request("/predict", ROWS_900))


async def huge_answers_unread(to: Attackers) -> None:
    """10,000 rows, whose answer is not read."""
    rows = b"[" + b",".join([b"[1,2,3,4]"] * 10_000) + b"]"
    await to.does_not_read(request("/predict", rows))


async def bombs(to: Attackers) -> None:
    """4 kB that stand for 4 MB."""
    body = gzip.compress(b"[" + b" " * 4_000_000 + b"]")
    await to.sends(request("/predict", body, headers={"content-encoding": "gzip"}))


async def assets_unread(to: Attackers) -> None:
    """The largest files, which are not read."""
    paths = ("/docs/assets/swagger-ui-bundle.js", "/openapi.json")
    await to.does_not_read(*(request(path, method="GET") for path in paths))


ATTACKS: tuple[Attack, ...] = (
    stalled_bodies,
    stalled_chunks,
    tiny_chunks,
    tiny_packets,
    tiny_packets_of_a_large_body,
    stalled_webhooks,
    stalled_webhook_chunks,
    many_rows,
    huge_answers_unread,
    bombs,
    assets_unread,
)
