"""Translates one request of granian's RSGI into one call of an ASGI app.

- An answer that the app sends as one message, as nearly all are, goes to granian in one piece.
- A file that the app names (the ASGI extension `http.response.pathsend`) is read by granian, as
  fast as the client reads it: of a file of any size some 300 kB per client are in memory.
- Other answers in several messages are streamed. granian 2.8 does not report how much of a stream
  the client has read, and keeps the rest in memory, so a stream has a largest size:
  `MAX_STREAM_BYTES`.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

# Public, but not re-exported by name
from granian.rsgi import ProtocolClosed  # type: ignore[attr-defined]

from halfcore.http.answers import Answers
from halfcore.http.exchange import Exchange, Headers, Scope, Stream, whole
from halfcore.log import logger
from halfcore.predict.prediction import refusal, unexpected

MAX_STREAM_BYTES = 4 << 20
"""Largest streamed answer that is not a file: all of it may be in memory if the client does not
read."""
Message = dict[str, Any]
_DISCONNECT = "http.disconnect"


class ClientLeftError(OSError):
    """The client left before its answer was complete."""


async def answer(
    app: Callable[..., Awaitable[None]], scope: Scope, exchange: Exchange, answers: Answers
) -> None:
    """Answer a request with an ASGI app; if the app fails before its answer began, the answer is
    500.

    If the app does not complete a streamed answer, the answer ends early. Its client can notice
    this only if the answer has a Content-Length: RSGI cannot abort a connection.
    """
    bridge = Bridge(scope, exchange, answers)
    try:
        await app(asgi_scope(scope), bridge.receive, bridge.send)
        bridge.check()
    except Exception as error:  # noqa: BLE001  no caller catches it
        if bridge.client_left:
            return  # the app failed only because the client left
        if bridge.began:
            message = (
                "an answer is incomplete: the app failed after it began to send it; see the stack"
            )
            logger.error(message, exc_info=error, extra={"path": scope.path})
        else:
            exchange.response_bytes(*refusal(unexpected(error)))
    finally:
        bridge.close()


class Bridge:
    """ASGI's `receive` and `send` over one exchange of RSGI."""

    def __init__(self, scope: Scope, exchange: Exchange, answers: Answers) -> None:
        self._answers = answers
        self._scope = scope
        self._exchange = exchange
        self._body: AsyncIterator[bytes] | None = None
        self._reading: asyncio.Task[Message] | None = None
        self._received_all = False
        self._head: tuple[int, Headers] | None = None
        self._stream: Stream | None = None
        self._streamed_bytes = 0
        self._complete = False
        self._watch: asyncio.Future[None] | None = None
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when the answer is complete or the client left: nothing more can be received."""

    @property
    def client_left(self) -> bool:
        """Whether the client left before its answer was complete."""
        return self._ended.done() and not self._complete

    @property
    def began(self) -> bool:
        """Whether the beginning of the answer was given to granian."""
        return self._complete or self._stream is not None

    async def receive(self) -> Message:
        """The request's body in parts; `http.disconnect` once the answer is complete or the client
        left."""
        if not self._received_all and not self._ended.done():
            # One read at a time: with a second one granian would stop the event loop. The read
            # survives if this call is cancelled, so that the next call misses no part.
            if self._reading is None:
                self._reading = asyncio.create_task(self._read())
            await asyncio.wait((self._reading, self._ended), return_when=asyncio.FIRST_COMPLETED)
            if self._reading.done():
                message, self._reading = self._reading.result(), None
                return message
        self._watch_client()
        await asyncio.wait((self._ended,))
        return {"type": _DISCONNECT}

    async def send(self, message: Message) -> None:
        """Send a part of the answer.

        Raises:
            ClientLeftError: the client left in the middle of a streamed answer.
            RuntimeError: the message is out of order, or the stream is too long.
        """
        kind = message["type"]
        if kind == "http.response.start":
            self._head = message["status"], _text(message["headers"])
            return
        if self._head is None or self._complete:
            raise RuntimeError(
                f"{kind} was sent out of order, expected it once, after http.response.start"
            )
        if kind == "http.response.pathsend":
            path = message["path"]
            # It does not block: the app looked at the file when it made the answer
            size = Path(path).stat().st_size  # noqa: ASYNC240
            self._answers.send_file(self._exchange, *self._head, path, size)
            self._finish()
            return
        part, more = message.get("body", b""), message.get("more_body", False)
        if self._stream is None and not more:
            self._answers.send_page(self._exchange, *self._head, part)
            self._finish()
            return
        await self._send_part(part)
        if not more:
            self._finish()

    def check(self) -> None:
        """Raise RuntimeError if the app returned without a complete answer while the client
        waits."""
        if not self._complete and not self.client_left:
            raise RuntimeError("the app returned before its answer was complete")

    def close(self) -> None:
        """Release the request's resources."""
        self._stream = None
        for pending in (self._reading, self._watch):
            if pending is not None:
                pending.cancel()

    async def _read(self) -> Message:
        if self._body is None:
            self._body = aiter(self._exchange)
        if part := await anext(self._body):
            return {"type": "http.request", "body": part, "more_body": True}
        self._received_all = True
        ends = 1
        # Without a default for `anext`: CPython 3.11 crashes if granian raises immediately.
        with suppress(StopAsyncIteration):
            while True:
                await anext(self._body)
                ends += 1
        if whole(ends, self._scope.headers):
            return {"type": "http.request", "body": b"", "more_body": False}
        self._end()
        return {"type": _DISCONNECT}

    async def _send_part(self, part: bytes) -> None:
        assert self._head is not None  # noqa: S101  for the type checker
        if self._stream is None:
            self._watch_client()
            self._stream = self._exchange.response_stream(*self._head)
        if not part:
            return
        if self._ended.done():
            raise ClientLeftError
        self._streamed_bytes += len(part)
        if self._streamed_bytes > MAX_STREAM_BYTES:
            raise RuntimeError(
                f"more than {MAX_STREAM_BYTES} bytes were streamed; name a file instead "
                "(http.response.pathsend)"
            )
        try:
            await self._stream.send_bytes(part)
        except ProtocolClosed:
            self._end()
            raise ClientLeftError from None
        # granian accepts every part immediately; without this, other requests would wait for the
        # whole answer.
        await asyncio.sleep(0)

    def _watch_client(self) -> None:
        if self._watch is None and not self._ended.done():
            self._watch = asyncio.ensure_future(self._exchange.client_disconnect())
            self._watch.add_done_callback(self._end)

    def _finish(self) -> None:
        self._complete = True
        self._stream = None
        self._end()

    def _end(self, *_: object) -> None:
        if not self._ended.done():
            self._ended.set_result(None)


def asgi_scope(scope: Scope) -> Message:
    """The ASGI scope of a request."""
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": scope.http_version,
        "method": scope.method,
        "scheme": scope.scheme,
        "path": scope.path,
        "raw_path": scope.path.encode(),
        "root_path": "",
        "query_string": scope.query_string.encode(),
        "headers": [(name.encode(), value.encode()) for name, value in scope.headers.items()],
        "server": _address(scope.server),
        "client": _address(scope.client),
        "extensions": {"http.response.pathsend": {}},
        "state": {},
    }


def _address(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host, int(port or 0)


def _text(headers: list[tuple[bytes, bytes]]) -> Headers:
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]
