"""One user's connection: sends a request, reads the answer in pieces as they arrive, never
waits."""

import errno
import re
import time
from typing import NamedTuple

from loadlab.generator.epoll.wire import connect
from loadlab.generator.exchange import Exchange, is_right
from loadlab.generator.plan import Load

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
_OK = b"HTTP/1.1 200"
_RECEIVE_BYTES = 65536


class Failed(Exception):
    """The exchange failed; the message is the kind."""


class Question(NamedTuple):
    """A request as bytes, and the body of its right answer; empty: any will do."""

    request: bytes
    right: bytes


class Conversation:
    """A connection that is being opened or open; raises `OSError` if it cannot even be begun."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._began: float | None = time.monotonic()
        self._socket = connect(*address)
        self.fileno = self._socket.fileno()
        self._data = b""

    @staticmethod
    def prepare(exchange: Exchange, load: Load) -> Question:
        """The request as it goes over the wire."""
        body = exchange.body.encode()
        host, port = load.addresses[0]
        head = (
            f"POST {load.path} HTTP/1.1\r\nhost: {host}:{port}\r\ncontent-type: "
            f"application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        return Question(head.encode("latin-1") + body, exchange.answer.encode())

    def ask(self, question: Question) -> float | None:
        """Send a request; returns how long connecting took, the first time.

        Raises:
            BlockingIOError: not connected yet.
            Failed: `connect` or `reset`.
        """
        try:
            whole = self._socket.send(question.request) == len(question.request)
        except BlockingIOError:
            raise
        except OSError as error:
            raise Failed(
                "reset" if self._began is None or error.errno == errno.EPIPE else "connect"
            ) from None
        if not whole:
            raise Failed("reset")
        took_s = None if self._began is None else time.monotonic() - self._began
        self._began = None
        return took_s

    def take(self, question: Question | None) -> bool:
        """Receive; whether the answer is whole and right.

        Args:
            question: that was asked; None: none was sent, so any answer is wrong.

        Raises:
            Failed: `reset`, `status_…`, `wrong_body` or `wrong_prediction`.
        """
        try:
            data = self._socket.recv(_RECEIVE_BYTES)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data:
            raise Failed("reset")
        if question is None:
            raise Failed("wrong_body")
        self._data += data
        return self._whole(question)

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def _whole(self, question: Question) -> bool:
        data = self._data
        end = data.find(b"\r\n\r\n") + 4
        length = _LENGTH.search(data, 0, end) if end > 3 else None
        missing = end + int(length[1]) - len(data) if length else 1
        if missing > 0:
            return False
        self._data = b""
        if not data.startswith(_OK):
            raise Failed(f"status_{data[9:12].decode(errors='replace')}")
        if missing < 0:
            raise Failed("wrong_body")
        body, right = data[end:], question.right
        if right and body != right and not is_right(body, right):
            raise Failed("wrong_prediction")
        return True
