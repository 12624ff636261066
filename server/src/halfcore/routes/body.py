"""Reads request bodies within a size and a time, which neither granian nor Litestar bounds in time."""

import asyncio
from collections.abc import Awaitable
from time import monotonic

from litestar.types import Receive

from halfcore.errors import Problem


class BodyReader:
    """Reads bodies; a client that sends too much gets 413, one that sends too slowly 408.

    All readers share one timer, which exists only while a body is outstanding: a timer each would cost every request more than
    the read itself.

    Args:
        max_bytes: largest body.
        timeout_s: seconds from the request's head to its last byte; enforced to within a quarter more.
    """

    def __init__(self, *, max_bytes: int, timeout_s: float) -> None:
        self.max_bytes = max_bytes
        self._timeout_s = timeout_s
        self._reading: dict[asyncio.Task[object], float] = {}  # in order of arrival: the first is the oldest
        self._late: set[asyncio.Task[object]] = set()
        self._sweeping = False

    async def in_time(self, body: Awaitable[bytes]) -> bytes:
        """The body, if it arrives in time.

        Raises:
            Problem: 408, which closes the connection; 413 or 400 from the reading itself.
        """
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  for the type checker: a coroutine runs in a task
        self._reading[task] = monotonic()
        if not self._sweeping:
            self._sweep()
        try:
            return await body
        except asyncio.CancelledError:
            if task not in self._late:
                raise
            task.uncancel()
            message = f"the body did not arrive within {self._timeout_s:g} s"
            raise Problem(408, "body_too_slow", message, headers={"connection": "close"}) from None
        finally:
            del self._reading[task]
            self._late.discard(task)

    def _sweep(self) -> None:
        """Cancel the readers that are late, and look again as long as there are others."""
        oldest = monotonic() - self._timeout_s
        for task, since in self._reading.items():
            if since > oldest:
                break
            if task not in self._late:
                self._late.add(task)
                task.cancel()
        self._sweeping = bool(self._reading)
        if self._sweeping:
            asyncio.get_running_loop().call_later(self._timeout_s / 4, self._sweep)


async def from_asgi(receive: Receive, max_bytes: int) -> bytes:
    """Collect an ASGI request's body.

    Raises:
        Problem: 413 beyond `max_bytes`; 400 if the client left.
    """
    chunks: list[bytes] = []
    size = 0
    while (message := await receive())["type"] == "http.request":
        size += len(message["body"])
        if size > max_bytes:
            raise too_large(max_bytes)
        chunks.append(message["body"])
        if not message.get("more_body"):
            return b"".join(chunks)
    raise client_left()


def too_large(max_bytes: int) -> Problem:
    """The 413 for a body, which closes the connection."""
    return Problem(413, "body_too_large", f"the body is larger than {max_bytes} bytes", headers={"connection": "close"})


def client_left() -> Problem:
    """For the log and the metrics: nobody will read this answer."""
    return Problem(400, "client_left", "the client left before its body was complete")
