"""One keep-alive connection that asks one question after another, and waits for each answer."""

import socket

from loadlab.generator.epoll.answer import read


class Asker:
    """Asks over one connection, which is opened again when it broke.

    Args:
        host: of the server.
        port: of the server.
        path: where predictions are.
        timeout_s: for connecting and for each answer.
    """

    def __init__(
        self, host: str, port: int, path: str = "/predict", *, timeout_s: float = 10.0
    ) -> None:
        self._host, self._port, self._path, self._timeout_s = host, port, path, timeout_s
        self._connection: socket.socket | None = None

    def ask(self, body: str) -> tuple[int, bytes]:
        """Status and body of the answer; raises `OSError` (no answer, `TimeoutError` not in time)
        or `ValueError` (not HTTP)."""
        try:
            connection = self.connect()
            connection.sendall(self._request(body))
            return read(connection)
        except (OSError, ValueError):
            self.close()
            raise

    def connect(self) -> socket.socket:
        """The open connection; opens one if there is none."""
        if self._connection is None:
            self._connection = socket.create_connection(
                (self._host, self._port), timeout=self._timeout_s
            )
            self._connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self._connection

    def close(self) -> None:
        """Close the connection; idempotent."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _request(self, body: str) -> bytes:
        data = body.encode()
        head = (
            f"POST {self._path} HTTP/1.1\r\nhost: {self._host}:{self._port}\r\ncontent-type: "
            "application/json\r\n"
        )
        return f"{head}content-length: {len(data)}\r\n\r\n".encode("latin-1") + data
