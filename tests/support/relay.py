"""A TCP relay in front of a server that breaks the connection when a request's first line holds a
certain text."""

import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class Relay(socketserver.ThreadingTCPServer):
    """Listens on a free port and passes every connection on to `port`."""

    allow_reuse_address = daemon_threads = True

    def __init__(self, port: int) -> None:
        """Nothing is cut at first."""
        super().__init__(("127.0.0.1", 0), _Connection)
        self.upstream = port
        self.cut_at: bytes | None = None
        """Breaks the connection that sends this, for example b"model.onnx HTTP"; half of what was
        sent is passed on."""

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Connection(socketserver.BaseRequestHandler):
    server: Relay

    def handle(self) -> None:
        with socket.create_connection(("127.0.0.1", self.server.upstream)) as upstream:
            back = threading.Thread(target=_pass_on, args=(upstream, self.request), daemon=True)
            back.start()
            with suppress(OSError):
                while data := self.request.recv(65536):
                    if self.server.cut_at and self.server.cut_at in data:
                        upstream.sendall(data[: len(data) // 2])
                        break
                    upstream.sendall(data)
            with suppress(OSError):
                upstream.shutdown(socket.SHUT_RDWR)
            back.join(10)


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


@contextmanager
def relay(port: int) -> Iterator[Relay]:
    """Relay to a port of this machine until the block ends."""
    with Relay(port) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join(10)
