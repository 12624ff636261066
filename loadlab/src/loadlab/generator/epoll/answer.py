"""Is this the right answer? Two comparisons of bytes when it looks like the first one, parsing
otherwise."""

import re
import socket

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
_OK = b"HTTP/1.1 200"
_RECEIVE_BYTES = 65536


class Wrong(Exception):
    """A wrong answer; the message is the kind of failure."""


class Judge:
    """Judges answers by their status, length, and how their body begins."""

    def __init__(self, prefix: bytes) -> None:
        self._prefix = prefix
        self._length = -1
        self._offset = 0

    def is_usual(self, data: bytes) -> bool:
        """Whether length, status and prefix are those of the last right answer that was
        parsed."""
        return (
            len(data) == self._length
            and data.startswith(_OK)
            and data.startswith(self._prefix, self._offset)
        )

    def is_complete(self, data: bytes) -> bool:
        """Parse the answer: False while bytes are missing.

        Raises:
            Wrong: `status` or `wrong_body`.
        """
        head, separator, body = data.partition(b"\r\n\r\n")
        if not separator:
            return False
        length = _LENGTH.search(head + b"\r\n")
        if length is None or len(body) > int(length[1]):
            raise Wrong("wrong_body")
        if len(body) < int(length[1]):
            return False
        if not data.startswith(_OK):
            raise Wrong("status")
        if not body.startswith(self._prefix):
            raise Wrong("wrong_body")
        self._length, self._offset = len(data), len(data) - len(body)
        return True


def ask(host: str, port: int, request: bytes, *, timeout_s: float = 10.0) -> tuple[int, bytes]:
    """One request on its own connection; returns status and body.

    Raises:
        OSError: no answer, or not in time.
        ValueError: the answer is not HTTP.
    """
    with socket.create_connection((host, port), timeout=timeout_s) as connection:
        connection.sendall(request)
        return read(connection)


def read(connection: socket.socket) -> tuple[int, bytes]:
    """Status and body of the next answer; raises as `ask` does."""
    data = b""
    while True:
        head, separator, body = data.partition(b"\r\n\r\n")
        length = _LENGTH.search(head + b"\r\n")
        if separator and length and len(body) >= int(length[1]):
            break
        chunk = connection.recv(_RECEIVE_BYTES)
        if not chunk:
            break
        data += chunk
    fields = data.split(b" ", 2)
    if len(fields) < 3 or not fields[1].isdigit():
        raise ValueError(f"not an HTTP answer: {data[:60]!r}")
    return int(fields[1]), data.partition(b"\r\n\r\n")[2]
