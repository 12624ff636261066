"""Sends answers to granian, and knows how much of them is still in memory.

granian takes an answer whole, whatever its size, and keeps it until the client has read it. Of an
answer in one piece it does not report when that is; of one in parts it reports the end. So a large
answer goes to granian in parts, and its memory is reserved until that end. Of a file granian keeps
some 300 kB per client, and reports nothing; it holds the file open, so the open files are counted.
An answer of up to `LARGE_ANSWER_BYTES` costs nothing here.
"""

import asyncio
import os
from contextlib import suppress
from functools import partial
from pathlib import Path

# Public, but not re-exported by name
from granian.rsgi import ProtocolClosed, ProtocolError  # type: ignore[attr-defined]

from halfcore.http.exchange import Exchange, Headers
from halfcore.predict.budget import FILE_BYTES, LARGE_ANSWER_BYTES, Budget, Hold
from halfcore.predict.prediction import refusal
from halfcore.problem import Problem

FIRST_COUNT_S, LAST_COUNT_S = 1.0, 16.0
"""Seconds until the open files are counted again: each time twice as long, while clients do not
read; with 10,000 connections a count takes some 20 ms."""
DISCARD_S = 1.0
"""Seconds for which the rest of a refused body is thrown away: 4 MB at 32 Mbit/s."""
MOST_DISCARDING = 128
"""Bodies that are thrown away at a time: 8 KiB of memory each, and CPU time as they arrive."""
_OPEN_FILES = "/proc/self/fd"


class Answers:
    """Sends the answers of one worker; used on the event loop only.

    Args:
        budget: of which the memory of large answers is reserved.
    """

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._files = Files(budget.hold(of_pages=True))
        self._discarding = 0
        self._ends: set[asyncio.Future[None]] = set()

    def send(self, exchange: Exchange, status: int, headers: Headers, body: bytes) -> None:
        """Send a prediction's answer, for which there was room when it was encoded."""
        if len(body) <= LARGE_ANSWER_BYTES:
            exchange.response_bytes(status, headers, body)
            return
        hold = self._budget.hold()
        hold.force(len(body))
        self._in_parts(exchange, status, headers, body, hold)

    def send_page(self, exchange: Exchange, status: int, headers: Headers, body: bytes) -> None:
        """Send any other answer, or 503 if there is no room for it."""
        if len(body) <= LARGE_ANSWER_BYTES:
            exchange.response_bytes(status, headers, body)
            return
        hold = self._budget.hold(of_pages=True)
        try:
            hold.cover(len(body))
        except Problem as problem:
            exchange.response_bytes(*refusal(problem))
        else:
            self._in_parts(exchange, status, headers, body, hold)

    def send_file(
        self, exchange: Exchange, status: int, headers: Headers, path: str, size: int
    ) -> None:
        """Send a file of `size` bytes, or 503 if there is no room for what of it is in memory."""
        if size > LARGE_ANSWER_BYTES:
            try:
                self._files.add(path)
            except Problem as problem:
                exchange.response_bytes(*refusal(problem))
                return
        exchange.response_file(status, headers, path)

    async def discard(self, exchange: Exchange) -> None:
        """Throw away what arrives of a body that was refused, for a moment: if the connection was
        closed at once, a client that still sends would get a reset instead of the answer."""
        if self._discarding < MOST_DISCARDING:
            self._discarding += 1
            try:
                with suppress(ProtocolClosed, ProtocolError, TimeoutError):
                    async with asyncio.timeout(DISCARD_S):
                        async for _ in exchange:
                            pass
            finally:
                self._discarding -= 1

    def _in_parts(
        self, exchange: Exchange, status: int, headers: Headers, body: bytes, hold: Hold
    ) -> None:
        stream = exchange.response_stream(status, headers)
        for at in range(0, len(body), LARGE_ANSWER_BYTES):
            stream.send_bytes(body[at : at + LARGE_ANSWER_BYTES])
        del stream  # which ends the answer
        end: asyncio.Future[None] = asyncio.ensure_future(exchange.client_disconnect())
        self._ends.add(end)
        end.add_done_callback(partial(self._ended, hold))

    def _ended(self, hold: Hold, end: "asyncio.Future[None]") -> None:
        self._ends.discard(end)
        hold.release()


class Files:
    """The files that are being sent.

    Args:
        hold: what is reserved for them, `FILE_BYTES` each.
    """

    def __init__(self, hold: Hold) -> None:
        self._hold = hold
        self._paths: set[str] = set()
        self._delay_s = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def add(self, path: str) -> None:
        """Reserve memory for one more file; raises `Problem`, 503, if there is no room."""
        if not self._hold.fits(self._hold.size + FILE_BYTES) and self._delay_s <= FIRST_COUNT_S:
            self._count()  # some may have been read by now
        self._hold.cover(self._hold.size + FILE_BYTES)
        self._paths.add(os.path.realpath(path))
        self._delay_s = FIRST_COUNT_S
        self._schedule()

    def _schedule(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._delay_s, self._count)

    def _count(self) -> None:
        """Reserve what is needed for the files that are still open; look again if there are any."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._hold.force(count_open(self._paths) * FILE_BYTES)
        if self._hold.size:
            self._delay_s = min(2 * self._delay_s, LAST_COUNT_S)
            self._schedule()


def count_open(paths: set[str]) -> int:
    """How often this process has these files open; 0 where the system does not say."""
    found = 0
    with suppress(FileNotFoundError):
        for link in Path(_OPEN_FILES).iterdir():
            with suppress(OSError):  # it was closed meanwhile
                found += str(link.readlink()) in paths
    return found
