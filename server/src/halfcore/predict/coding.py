"""Content codings: expands compressed bodies, within the size limit, in slices, few at a time.

A body is compressed to be small on the way, and a hostile one to be large here: 4 kB may stand for
4 MB. So a request waits with its compressed body, and only `MOST_LONG` bodies that do not fit into
one slice are in memory expanded at a time: each keeps its place until it is answered. They are
expanded one after another, one slice in each turn of the event loop.
"""

import asyncio
import zlib
from collections.abc import Generator

from halfcore.predict.body import too_large
from halfcore.predict.budget import Budget, Hold
from halfcore.problem import Problem

SLICE_BYTES = 64 << 10
"""Most bytes that are expanded between two pauses: some tenths of a millisecond."""
READ_BYTES = 16 << 10
"""Most compressed bytes that are read between two pauses: they may be made to cost time without
expanding to anything."""
MOST_LONG = 8
"""Bodies of more than one slice that are in memory expanded at a time: 32 MiB of the largest
ones."""
_GZIP, _ZLIB, _DEFLATE = 31, 15, -15
"""What zlib calls window bits: with gzip's head, with zlib's, and without one."""
_NAMES = {"gzip": "gzip", "x-gzip": "gzip", "deflate": "deflate"}
_ACCEPTED = "gzip, deflate"


def coding_of(content_encoding: str | None) -> str | None:
    """The coding of a body: `gzip`, `deflate`, or None if it is not compressed.

    Raises:
        Problem: 415 for any other, with what is accepted (RFC 9110, 15.5.16).
    """
    if content_encoding is None:
        return None
    names = [name.strip().lower() for name in content_encoding.split(",")]
    coded = [name for name in names if name not in ("", "identity")]
    if not coded:
        return None
    if len(coded) == 1 and coded[0] in _NAMES:
        return _NAMES[coded[0]]
    raise Problem(
        415,
        "unsupported_encoding",
        f"Content-Encoding is {content_encoding[:80]}, expected one of {_ACCEPTED}, or none",
        headers={"connection": "close", "accept-encoding": _ACCEPTED},
    )


def expand(
    body: bytes, coding: str, *, max_bytes: int, hold: Hold | None = None
) -> Generator[None, None, bytes]:
    """Expand a body, pausing after each slice; nothing beyond the limit is expanded.

    Args:
        body: one or several gzip members, or a deflate stream with zlib's head or without it.
        coding: from `coding_of`.
        max_bytes: largest expanded body.
        hold: covers the body, and is made to cover what it is expanded to as well.

    Raises:
        Problem: 413 beyond the limit; 503 beyond the budget; 400 if the stream is broken,
            incomplete or followed by other data.
    """
    hold = hold or Budget().hold()
    stream = _Stream(coding, _bits(body, coding), max_bytes)
    for at in range(0, len(body), READ_BYTES):
        if at:
            yield
        rest = stream.take(body[at : at + READ_BYTES])
        hold.cover(len(body) + stream.size)
        while rest:
            if stream.since_pause >= SLICE_BYTES:
                stream.since_pause = 0
                yield
            rest = stream.take(rest)
            hold.cover(len(body) + stream.size)
    return stream.end()


class _Stream:
    """One body that is being expanded."""

    __slots__ = ("_bits", "_coding", "_max_bytes", "_parts", "_stream", "since_pause", "size")

    def __init__(self, coding: str, bits: int, max_bytes: int) -> None:
        self._coding = coding
        self._bits = bits
        self._max_bytes = max_bytes
        self._stream = zlib.decompressobj(bits)
        self._parts: list[bytes] = []
        self.size = 0
        """Bytes expanded so far."""
        self.since_pause = 0
        """Bytes expanded since the caller set it to 0."""

    def take(self, data: bytes) -> bytes:
        """Expand at most a slice of this part of the stream; return what is left of the part.

        Raises:
            Problem: see `expand`.
        """
        if self._stream.eof:
            if self._bits != _GZIP:
                raise self._broken("data follows its end")
            self._stream = zlib.decompressobj(self._bits)
        stream = self._stream
        try:
            part = stream.decompress(data, min(SLICE_BYTES, self._max_bytes - self.size + 1))
        except zlib.error as error:
            raise self._broken(str(error).rpartition(": ")[2]) from None
        self.size += len(part)
        if self.size > self._max_bytes:
            raise too_large(self._max_bytes)
        self.since_pause += len(part)
        if part:
            self._parts.append(part)
        return stream.unused_data if stream.eof else stream.unconsumed_tail

    def end(self) -> bytes:
        """The expanded body, once all parts were taken.

        Raises:
            Problem: see `expand`.
        """
        # The last bytes of a stream without a checksum may be read before all that they stand for
        # is written.
        while not self._stream.eof:
            before = self.size
            self.take(b"")
            if self.size == before:
                break
        if not self._stream.eof:
            raise self._broken("it ends early")
        return b"".join(self._parts)

    def _broken(self, reason: str) -> Problem:
        return Problem(
            400,
            "invalid_encoding",
            f"the body cannot be expanded as {self._coding}: {reason}; send a whole "
            f"{self._coding} stream, or no Content-Encoding",
        )


class Expander:
    """Expands the compressed bodies of one worker; used on the event loop only.

    Args:
        max_bytes: largest expanded body.
        timeout_s: longest wait for a place; beyond it the answer is 503.
    """

    def __init__(self, *, max_bytes: int, timeout_s: float) -> None:
        self.max_bytes = max_bytes
        self.timeout_s = timeout_s
        self.places = asyncio.Semaphore(MOST_LONG)
        self.turn = asyncio.Lock()


class Place:
    """The place of one request's body among the expanded ones; taken only by a long one.

    Args:
        expander: has the places.
        content_encoding: the request's header.
        hold: what is reserved for the request's body.

    Raises:
        Problem: see `coding_of`.
    """

    def __init__(
        self, expander: Expander, content_encoding: str | None, hold: Hold | None = None
    ) -> None:
        self._expander = expander
        self._hold = hold
        self._coding = coding_of(content_encoding)
        self._taken = False

    async def expand(self, body: bytes) -> bytes:
        """The expanded body; call `release` when the request is answered.

        Raises:
            Problem: see the function `expand`; 503 if no place was free in time. The place is free.
        """
        if self._coding is None:
            return body
        most = self._expander.max_bytes
        try:
            next(expand(body, self._coding, max_bytes=most, hold=self._hold))
        except StopIteration as end:
            short: bytes = end.value
            return short
        await self._take()
        try:
            async with self._expander.turn:
                steps = expand(body, self._coding, max_bytes=most, hold=self._hold)
                return await _in_slices(steps)
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Give the place to another request, if it was taken."""
        if self._taken:
            self._taken = False
            self._expander.places.release()

    async def _take(self) -> None:
        timeout_s = self._expander.timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                await self._expander.places.acquire()
        except TimeoutError:
            message = f"the request waited longer than {timeout_s:g} s to be expanded; try again"
            raise Problem(503, "queue_timeout", message, retry_after_s=1) from None
        self._taken = True


async def _in_slices(steps: Generator[None, None, bytes]) -> bytes:
    """Take all steps, one in each turn of the event loop."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            expanded: bytes = end.value
            return expanded
        await asyncio.sleep(0)


def _bits(body: bytes, coding: str) -> int:
    """How zlib reads the body. Some clients leave out the head that `deflate` has (RFC 9110,
    8.4.1.2): it is 8 in the low half of the first byte, and both bytes a multiple of 31."""
    if coding == "gzip":
        return _GZIP
    headed = len(body) > 1 and body[0] & 15 == 8 and int.from_bytes(body[:2]) % 31 == 0
    return _ZLIB if headed else _DEFLATE
