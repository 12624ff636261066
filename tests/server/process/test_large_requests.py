"""Large requests over a real granian: what they take is bounded, and the server survives clients
that want its memory."""

import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from halfcore.http.answers import count_open
from loadlab.record import cgroup
from support.attacks import ROWS_900
from support.bundles import write_bundle
from support.client import parsed, wait_until
from support.serving import Server, receive, request, serving

LIMIT = 1_000_000
RESET = struct.pack("ii", 1, 0)
"""Of SO_LINGER: closing sends a reset."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with room for little."""
    bundles = tmp_path_factory.mktemp("bundles")
    write_bundle(bundles)
    with serving(bundles, max_bytes_in_flight=LIMIT, log_level="error") as running:
        yield running


def reserved(server: Server) -> float:
    """Bytes in use."""
    text = server.send(request("/metrics", method="GET")).partition(b"\r\n\r\n")[2].decode()
    return parsed(text)[("halfcore_bytes_in_flight",)]


def connect(server: Server) -> socket.socket:
    """A connection."""
    return socket.create_connection(("127.0.0.1", server.port), timeout=60)


def announcing(length: int, path: str = "/predict") -> bytes:
    """The head of a request with a body of this length."""
    return request(path, headers={"content-length": str(length)})


def test_a_body_that_does_not_fit_is_refused_before_it_is_sent(server: Server) -> None:
    """At once, with Retry-After; then the connection ends."""
    with connect(server) as connection:
        connection.sendall(announcing(LIMIT + 1))
        head, _, body = receive(connection).partition(b"\r\n\r\n")
        assert b" 503 " in head
        assert b"retry-after: 1" in head
        assert b"too_many_bytes" in body
        assert connection.recv(1) == b""
    assert reserved(server) == 0


def test_a_client_that_sends_it_all_the_same_gets_the_answer(server: Server) -> None:
    """Not a reset: what it sends is thrown away for a moment."""
    answer = server.send(announcing(LIMIT + 1) + b" " * (LIMIT + 1))
    assert b" 503 " in answer[:20]


def test_bodies_that_stall_are_reserved_until_their_clients_leave(server: Server) -> None:
    """Whoever finds no room is refused, and small requests are answered meanwhile."""
    stalled = [connect(server) for _ in range(3)]
    for connection in stalled:
        connection.sendall(announcing(LIMIT // 3) + b"[")
    wait_until(lambda: reserved(server) == LIMIT // 3 * 3)
    assert b" 503 " in server.send(announcing(LIMIT // 3))[:20]
    assert b" 200 " in server.send(request("/predict", b'{"features":[1,2,3,4]}'))[:20]
    for connection in stalled:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        connection.close()
    wait_until(lambda: reserved(server) == 0)


def test_a_large_answer_keeps_its_connection(server: Server) -> None:
    """And nothing stays reserved once it was read."""
    rows = b"[" + b",".join([b"[1,2,3,4]"] * 5000) + b"]"
    with connect(server) as connection:
        for _ in range(2):
            connection.sendall(request("/predict", rows))
            answer = receive(connection)
            assert b" 200 " in answer[:20]
            assert len(answer) > 200_000
    wait_until(lambda: reserved(server) == 0)


def test_clients_that_leave_without_reading_leave_nothing(server: Server) -> None:
    """Neither of predictions nor of files."""
    asset = request("/docs/assets/swagger-ui-bundle.js", method="GET")
    for sent in (request("/predict", ROWS_900), asset):
        with connect(server) as connection:
            connection.sendall(sent)
            connection.recv(1)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    wait_until(lambda: reserved(server) == 0)


def test_open_files_are_counted(tmp_path: Path) -> None:
    """As often as they are open."""
    file = tmp_path / "file"
    file.write_text("x")
    paths = {str(file)}
    with file.open(), file.open():
        assert count_open(paths) == 2
    assert count_open(paths) == 0


@pytest.mark.slow
def test_no_client_can_take_the_memory() -> None:
    """The short form of `just prove-memory`: nothing is killed, and nothing stays reserved."""
    try:
        cgroup.version()
    except cgroup.Unavailable as reason:
        pytest.skip(str(reason))
    script = Path(__file__).parents[2] / "e2e/prove_memory.py"
    done = subprocess.run(
        [sys.executable, str(script), "--short"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
