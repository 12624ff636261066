"""HTTP as the generators speak it: prepared requests, answers parsed as their bytes arrive, and the
comparison with the right answer. Imports nothing of the lab."""

import errno
import json
import re
import select
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

TOLERANCE = 1e-5
"""Largest difference of a probability or a value: float32 and the order of summation in batches."""
RECEIVE_BYTES = 4096
"""Asked for at once; a prediction's answer is a fraction of it."""
RESET_ON_CLOSE = struct.pack("ii", 1, 0)
"""Value of SO_LINGER: thousands of ports in TIME_WAIT would be missing in the next run."""
_MOST_BYTES = 1 << 24
_MOST_SHOWN = 300
"""Characters of an answer on Locust's page."""
_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})")
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked\r\n", re.IGNORECASE)


class Failed(Exception):
    """An exchange failed; the message is the kind: `connect`, `reset`, `timeout`, `status_…`,
    `wrong_body` (not one HTTP answer) or `wrong_prediction`.

    Args:
        kind: the message.
        body: of an answer that is an error, or a wrong prediction.
    """

    def __init__(self, kind: str, body: bytes = b"") -> None:
        super().__init__(kind)
        self.body = body


class InChunks(ValueError):
    """An answer without a Content-Length."""


_MEANINGS = {
    "connect": "no connection: refused, or not accepted in time",
    "reset": "the connection was closed before the answer was complete",
    "timeout": "no answer in time",
    "wrong_body": "what was received is not one HTTP answer",
    "wrong_prediction": "status 200, but another prediction than the model's",
}


def meaning(kind: str, body: bytes = b"") -> str:
    """What a kind of `Failed` means, for Locust's page, with the beginning of such an answer; any
    other text stays as it is."""
    means = _MEANINGS.get(kind, kind)
    if kind.startswith("status_"):
        means = f"status {kind.removeprefix('status_')}, expected 200"
    shown = " ".join(body.decode(errors="replace").split())
    return f"{means}; the first such answer: {shown[:_MOST_SHOWN]}" if shown else means


class Answer(NamedTuple):
    """A whole answer."""

    status: int
    body: bytes
    extra: int
    """Bytes after it; they are in `body`, too."""


@dataclass(slots=True, eq=False)
class Question:
    """A request, and what makes an answer right."""

    request: bytes
    """As it is sent."""
    right: bytes
    """The right answer's body; empty: any with status 200 will do."""
    whole: bool = True
    """Compare all of it; else only how the body begins."""
    usual: bytes = b""
    """The last right answer, head and body: the same bytes again need no parsing."""

    def is_right(self, data: bytes) -> bool:
        """Whether these bytes are the whole right answer; False: some are missing. Raises
        `Failed`."""
        if data == self.usual:
            return True
        try:
            answer = parse(data)
        except ValueError:
            raise Failed("wrong_body") from None
        if answer is None:
            return False
        if answer.status != 200:
            raise Failed(f"status_{answer.status}", answer.body)
        if answer.extra:
            raise Failed("wrong_body")
        body, right = answer.body, self.right
        if right and not (is_right(body, right) if self.whole else body.startswith(right)):
            raise Failed("wrong_prediction", body)
        self.usual = data
        return True


def parse(data: bytes, *, ended: bool = False) -> Answer | None:
    """The answer in the bytes that arrived; None while some are missing. `ended`: nothing follows,
    so what there is is the answer.

    Raises:
        ConnectionError: it ended within an answer, or before one.
        ValueError: this is not HTTP, or an answer in chunks.
    """
    if ended and not data:
        raise ConnectionResetError("the connection was closed without an answer")
    end = data.find(b"\r\n\r\n") + 4
    length = _LENGTH.search(data, 0, end) if end > 3 else None
    if not length and end > 3 and _CHUNKED.search(data, 0, end):
        raise InChunks("the answer is sent in chunks: the server must send its Content-Length")
    extra = len(data) - end - int(length[1]) if length else -1
    if extra < 0 and not ended and len(data) < _MOST_BYTES:
        return None
    if length and extra < 0 and ended:
        raise ConnectionResetError("the connection ended within an answer")
    if not (status := _STATUS.match(data)):
        raise ValueError(f"not an HTTP answer: {data[:60]!r}")
    return Answer(int(status[1]), data[end:] if end > 3 else b"", extra)


def post(
    address: tuple[str, int], path: str, body: str, *, binary: bytes = b"", length_header: str = ""
) -> bytes:
    """A request as it goes over the wire.

    Args:
        binary: what follows the body's JSON.
        length_header: name of the header that gives the length of the JSON, if bytes follow it.
    """
    data = body.encode()
    kind, more = "application/json", ""
    if length_header:
        kind, more = "application/octet-stream", f"{length_header}: {len(data)}\r\n"
    head = (
        f"POST {path} HTTP/1.1\r\nhost: {authority(*address)}\r\ncontent-type: {kind}\r\n"
        f"{more}content-length: {len(data) + len(binary)}\r\n\r\n"
    )
    return head.encode("latin-1") + data + binary


def authority(host: str, port: int) -> str:
    """An address as a URL has it: that of IPv6 stands in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_right(answer: bytes, expected: bytes) -> bool:
    """Whether a body is the right answer: the same bytes, or the same fields with the same texts
    and with numbers within `TOLERANCE`. A further field, one that is there twice, or anything after
    the answer is wrong."""
    if answer == expected:
        return True
    try:
        return same(fields(answer), json.loads(expected))
    except ValueError:
        return False


def same(received: Any, expected: Any) -> bool:
    """Whether two parsed answers agree: fields, texts and labels exactly, floats within
    `TOLERANCE`."""
    if isinstance(expected, dict):
        return (
            isinstance(received, dict)
            and received.keys() == expected.keys()
            and all(same(received[key], value) for key, value in expected.items())
        )
    if isinstance(expected, list):
        return (
            isinstance(received, list)
            and len(received) == len(expected)
            and all(map(same, received, expected))
        )
    if isinstance(received, float) or isinstance(expected, float):  # JSON writes 1.0 as 1
        numbers = all(type(each) in (int, float) for each in (received, expected))
        return numbers and abs(received - expected) <= TOLERANCE * max(1.0, abs(expected))
    return type(received) is type(expected) and bool(received == expected)


def fields(answer: bytes) -> Any:
    """An answer's JSON; raises `ValueError` for other bytes and for a field that is there twice."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(found := dict(pairs)) < len(pairs):
            raise ValueError("a field is there twice")
        return found

    return json.loads(answer, object_pairs_hook=once)


def connect(
    address: tuple[str, int],
    *,
    wait_s: float | None = None,
    make: Callable[..., Any] = socket.socket,
) -> Any:
    """A socket of `make` that resets when it is closed. With `wait_s` it is connected, and waits so
    long for answers; without it never blocks, and may still be connecting. Raises `OSError`."""
    connection = make(socket.AF_INET6 if ":" in address[0] else socket.AF_INET, socket.SOCK_STREAM)
    try:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        connection.settimeout(wait_s or 0.0)
        if wait_s:
            connection.connect(address)
        elif (code := connection.connect_ex(address)) not in (0, errno.EINPROGRESS):
            raise OSError(code, "connect")
    except OSError:
        connection.close()
        raise
    return connection


def ask(host: str, port: int, request: bytes, *, timeout_s: float = 10.0) -> tuple[int, bytes]:
    """One request on its own connection; returns status and body. Raises `OSError` (no answer, or
    not in time) or `ValueError` (not HTTP)."""
    with socket.create_connection((host, port), timeout=timeout_s) as connection:
        connection.sendall(request)
        return _read(connection)


class Client:
    """Asks over one keep-alive connection, which is opened again when it broke or the server closed
    it while it was idle, and waits for each answer; `timeout_s` is for connecting and for each
    answer."""

    def __init__(
        self, host: str, port: int, path: str = "/predict", *, timeout_s: float = 10.0
    ) -> None:
        self._address, self._path, self._timeout_s = (host, port), path, timeout_s
        self._connection: socket.socket | None = None

    def ask(self, body: str) -> tuple[int, bytes]:
        """Status and body of the answer; raises `OSError` (no answer, `TimeoutError` not in time)
        or `ValueError` (not HTTP)."""
        try:
            connection = self.connect()
            connection.sendall(post(self._address, self._path, body))
            return _read(connection)
        except (OSError, ValueError):
            self.close()
            raise

    def connect(self) -> socket.socket:
        """The open connection; opens one if there is none."""
        if self._connection is not None and _has_ended(self._connection):
            self.close()
        if self._connection is None:
            self._connection = connect(self._address, wait_s=self._timeout_s)
        return self._connection

    def close(self) -> None:
        """Close the connection; idempotent."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _has_ended(idle: socket.socket) -> bool:
    """Whether an idle connection has something to read: that it was closed, or an answer without a
    request."""
    look = select.poll()  # `select.select` takes no file number from 1,024 on
    look.register(idle, select.POLLIN)
    return bool(look.poll(0))


def _read(connection: socket.socket) -> tuple[int, bytes]:
    data = b""
    while (answer := parse(data)) is None:
        if not (chunk := connection.recv(RECEIVE_BYTES)):
            answer = parse(data, ended=True)
            break
        data += chunk
    assert answer  # noqa: S101  `parse` returns one where nothing follows
    return answer.status, answer.body
