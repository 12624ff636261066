"""A real `halfcore serve` process on a free port, and a client that sends and receives bytes as
they are."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Server:
    """A running server."""

    process: subprocess.Popen[str]
    port: int

    def send(self, request: bytes, *, timeout_s: float = 60.0) -> bytes:
        """Send bytes on a connection of their own; return all that came until the server closed or
        a whole answer stood there."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=timeout_s) as connection:
            connection.sendall(request)
            return receive(connection)

    def stop(self) -> int:
        """End it with SIGTERM; return its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(90)


def receive(connection: socket.socket) -> bytes:
    """One answer: head and as much body as its Content-Length says, or until the server closes."""
    data = b""
    while True:
        head, separator, body = data.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length: (\d+)", head)
        if separator and length and len(body) >= int(length[1]):
            return data
        chunk = connection.recv(65536)
        if not chunk:
            return data
        data += chunk


def request(
    path: str,
    body: bytes = b"",
    *,
    method: str = "POST",
    headers: Mapping[str, str | None] | None = None,
) -> bytes:
    """An HTTP/1.1 request as bytes; a JSON body unless the headers say otherwise. A header of None
    is left out."""
    fields = {
        "host": "test",
        "content-type": "application/json",
        "content-length": str(len(body)),
        **(headers or {}),
    }
    lines = [
        f"{method} {path} HTTP/1.1",
        *(f"{name}: {value}" for name, value in fields.items() if value is not None),
        "",
        "",
    ]
    return "\r\n".join(lines).encode("latin-1") + body


def free_port() -> int:
    """A port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _as_it_is(command: Sequence[str]) -> Sequence[str]:
    return command


@contextmanager
def serving(
    bundles: Path,
    *,
    path: str = "/health/ready",
    program: Sequence[str] = ("-m", "halfcore"),
    wrap: Callable[[Sequence[str]], Sequence[str]] = _as_it_is,
    **settings: object,
) -> Iterator[Server]:
    """Serve a directory of bundles in a process of its own until the block ends; yields once `path`
    answers 200.

    `program` is what Python runs; `wrap` may put something before the command, a control group say.
    """
    with starting(bundles, program=program, wrap=wrap, **settings) as server:
        _await_ready(server, path)
        yield server


@contextmanager
def starting(
    bundles: Path,
    *,
    program: Sequence[str] = ("-m", "halfcore"),
    wrap: Callable[[Sequence[str]], Sequence[str]] = _as_it_is,
    **settings: object,
) -> Iterator[Server]:
    """The same, but yields at once."""
    port = int(str(settings.get("port", free_port())))
    foreign = ("HALFCORE_", "MODEL_", "MLFLOW_", "DATABASE_URL")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(foreign)}
    environment |= {
        f"HALFCORE_{name.upper()}": str(value)
        for name, value in ({"bundles": bundles, "port": port} | settings).items()
    }
    command = wrap([sys.executable, *program, "serve"])
    process = subprocess.Popen(
        command, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    server = Server(process, port)
    try:
        yield server
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL) if sys.exc_info()[
                0
            ] else process.terminate()  # the group: workers outlive a killed parent
        process.wait(90)
        assert process.stderr is not None
        process.stderr.close()


def _await_ready(server: Server, path: str, timeout_s: float = 90.0) -> None:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if server.process.poll() is not None:
            assert server.process.stderr is not None
            raise AssertionError(
                f"the server ended with {server.process.returncode}: {server.process.stderr.read()}"
            )
        try:
            if b" 200 " in server.send(request(path, method="GET"))[:20]:
                return
        except OSError:
            time.sleep(0.02)  # nobody listens yet
    raise AssertionError("the server did not become ready")
