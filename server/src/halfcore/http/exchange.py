"""The types of what granian's RSGI passes to an application."""

from collections.abc import AsyncIterator, Awaitable
from typing import Any, Protocol

Headers = list[tuple[str, str]]
"""Of an answer, in lower case."""


class Scope(Protocol):
    """A request's head, as RSGI gives it. Every access copies `headers`."""

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
        """The body's chunks as they arrive, and empty chunks at its end; see `whole`."""

    def client_disconnect(self) -> Awaitable[None]:
        """Returns when the client left before granian had the answer, or when a streamed answer
        has ended."""

    def response_bytes(self, status: int, headers: Headers, body: bytes) -> None:
        """Answer."""

    def response_file(self, status: int, headers: Headers, file: str) -> None:
        """Answer with a file, which granian reads as fast as the client reads the answer."""

    def response_stream(self, status: int, headers: Headers) -> "Stream":
        """Answer in parts; the answer ends when the stream object is deleted."""


class Stream(Protocol):
    """An answer in parts. granian 2.8 queues them without a bound, however slowly the client
    reads."""

    def send_bytes(self, data: bytes) -> Awaitable[None]:
        """Queue a part; raises `ProtocolClosed` if the client left."""


def whole(ends: int, headers: Any) -> bool:
    """Whether a body that ended with `ends` empty chunks is complete.

    One empty chunk is its end. A second one means an error or trailers, which granian does not
    distinguish: it counts as trailers if the request's head announces them.
    """
    return ends == 1 or (ends == 2 and headers.get("trailer") is not None)
