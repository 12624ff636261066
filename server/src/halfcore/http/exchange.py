"""What granian's RSGI hands to an application."""

from collections.abc import AsyncIterator, Awaitable
from typing import Any, Protocol

Headers = list[tuple[str, str]]
"""Of an answer, in lower case."""


class Scope(Protocol):
    """A request's head, as RSGI gives it. `headers` is copied by every access."""

    http_version: str
    server: str
    client: str
    scheme: str
    method: str
    path: str
    query_string: str

    @property
    def headers(self) -> Any:
        """A mapping of lower-case names; `get` gives the first value, None for one that is not
        ASCII."""


class Exchange(Protocol):
    """One request's body and answer, as RSGI gives them. Each await is a switch to granian's
    threads and back."""

    def __call__(self) -> Awaitable[bytes]:
        """The whole body, of any size."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        """The body as it comes, and empty chunks at its end; see `whole`."""

    def client_disconnect(self) -> Awaitable[None]:
        """Returns when the client left before granian had the answer, or when a streamed one is
        over."""

    def response_bytes(self, status: int, headers: Headers, body: bytes) -> None:
        """Answer."""

    def response_file(self, status: int, headers: Headers, file: str) -> None:
        """Answer with a file, which granian reads as fast as the client takes it."""

    def response_stream(self, status: int, headers: Headers) -> "Stream":
        """Answer in parts; the answer ends when the stream is forgotten."""


class Stream(Protocol):
    """An answer in parts. granian 2.8 queues them without a bound, however slowly the client
    reads."""

    def send_bytes(self, data: bytes) -> Awaitable[None]:
        """Queue a part; raises `ProtocolClosed` if the client left."""


def whole(ends: int, headers: Any) -> bool:
    """Whether a body is complete that ended in so many empty chunks.

    One stands for its end. One more stands for an error or for trailers, which granian does not
    tell apart: it is taken for trailers where the request's head announces them.
    """
    return ends == 1 or (ends == 2 and headers.get("trailer") is not None)
