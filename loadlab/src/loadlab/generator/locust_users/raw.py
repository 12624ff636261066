"""RawHttpUser: HTTP over its own socket, requests prepared as bytes, every answer compared
whole.

One keep-alive connection per user. An answer's head is searched for its status and length only;
comparing the body with the expected bytes costs less than parsing it, so all are compared, and
parsed only where they differ.
"""

import re
import time
from typing import Any

from gevent import socket

from loadlab.generator.epoll.wire import RESET_ON_CLOSE
from loadlab.generator.exchange import Exchange, is_right
from loadlab.generator.locust_users.behaviour import Failed, Session, ThinkingUser
from loadlab.generator.plan import Load

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
_OK = b"HTTP/1.1 200"
_RECEIVE_BYTES = 65536


class RawHttpUser(ThinkingUser):
    """The default user."""

    def __init__(self, environment: Any) -> None:
        super().__init__(environment)
        self._socket: socket.socket | None = None

    @classmethod
    def prepare(cls, exchange: Exchange, load: Load) -> bytes:
        """The request as it goes over the wire."""
        body = exchange.body.encode()
        host, port = load.addresses[0]
        head = (
            f"POST {load.path} HTTP/1.1\r\nhost: {host}:{port}\r\ncontent-type: "
            f"application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        return head.encode("latin-1") + body

    def connect(self) -> None:
        """Open the connection where there is none: at the start, and after a failure."""
        if self._socket is not None:
            return
        began = time.monotonic()
        connection = socket.socket(
            socket.AF_INET6 if ":" in self.address[0] else socket.AF_INET, socket.SOCK_STREAM
        )
        connection.settimeout(Session.load.timeout_s)
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            # Closing resets: thousands of ports in TIME_WAIT would be missing in the next run.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
            connection.connect(self.address)
        except OSError:
            connection.close()
            raise Failed("connect") from None
        Session.ledger.connect_us[int((time.monotonic() - began) * 1e6)] += 1
        self._socket = connection

    def exchange(self, prepared: bytes, right: bytes) -> None:
        """Send, receive, compare; a connection that failed is closed."""
        try:
            self._socket.sendall(prepared)  # type: ignore[union-attr]  # connected just before
            body = self._receive()
            if right:
                Session.ledger.checked += 1
                if body != right and not is_right(body, right):
                    raise Failed("wrong_prediction")
        except BaseException:
            self._close()
            raise

    def on_stop(self) -> None:
        """Leave, and close the connection."""
        super().on_stop()
        self._close()

    def _receive(self) -> bytes:
        """The body of a whole answer with status 200."""
        data: bytes = self._socket.recv(_RECEIVE_BYTES)  # type: ignore[union-attr]
        while True:
            end = data.find(b"\r\n\r\n") + 4
            if end > 3 and (length := _LENGTH.search(data, 0, end)):
                missing = end + int(length[1]) - len(data)
                if missing <= 0:
                    break
            if not (more := self._socket.recv(_RECEIVE_BYTES)) or len(data) > 1 << 24:  # type: ignore[union-attr]
                raise Failed("reset")
            data += more
        if not data.startswith(_OK):
            raise Failed(f"status_{data[9:12].decode(errors='replace')}")
        if missing < 0:
            raise Failed("wrong_body")
        return data[end:]

    def _close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
