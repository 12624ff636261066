"""Clients that leave before their answer cost nothing more: their rows leave the queue."""

import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack

import orjson
import pytest

from support.bundles import expensive, write_bundle
from support.client import parsed, wait_until
from support.serving import Server, request, serving

ROWS = 900
CLIENTS = 20
BODY = orjson.dumps({"features": [[1.0, 2.0, 3.0, 4.5]] * ROWS})
CHUNKED = {"content-length": None, "transfer-encoding": "chunked"}
RESET = struct.pack("ii", 1, 0)
"""SO_LINGER: closing the connection resets it."""


@pytest.fixture(scope="module", params=["hot lane", "ASGI"])
def server(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Server]:
    """A model of milliseconds a row, so that rows wait."""
    bundles = tmp_path_factory.mktemp("bundles")
    write_bundle(bundles, model=expensive(4))
    with serving(bundles, queue_timeout_s=600, hot_lane=request.param == "hot lane") as server:
        yield server


def sample(server: Server, *name: str) -> float:
    """One sample of the server's metrics; 0 if it has none."""
    _, _, body = server.send(request("/metrics", method="GET")).partition(b"\r\n\r\n")
    return parsed(body.decode()).get(name, 0.0)


def connected(server: Server, stack: ExitStack) -> socket.socket:
    """A connection that is reset at the end."""
    connection = stack.enter_context(socket.create_connection(("127.0.0.1", server.port)))
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    return connection


@pytest.mark.parametrize("lane", ["plain", "chunked"])
def test_rows_of_clients_that_left_are_not_run(server: Server, lane: str) -> None:
    """Over the intake (a plain request) and the front (a chunked body): the queue is empty at
    once, the clients are counted, and the next client is answered."""
    message = request("/predict", BODY)
    if lane == "chunked":
        message = request("/predict", headers=CHUNKED) + b"%x\r\n%b\r\n0\r\n\r\n" % (
            len(BODY),
            BODY,
        )
    left = ("halfcore_requests_total", "numbers", "client_left", "predict")
    run = ("halfcore_batch_rows_sum", "numbers")
    left_before, run_before = sample(server, *left), sample(server, *run)
    with ExitStack() as stack:
        for _ in range(CLIENTS):
            connected(server, stack).sendall(message)
        queued = ("halfcore_queued_rows", "numbers")
        wait_until(lambda: sample(server, *queued) > CLIENTS * ROWS / 2)
    wait_until(lambda: sample(server, *queued) == 0)
    answer = server.send(request("/predict", b'{"features":[1,2,3,4.5]}'))

    assert answer.startswith(b"HTTP/1.1 200")
    assert sample(server, *left) - left_before >= CLIENTS / 2
    assert sample(server, *run) - run_before < CLIENTS * ROWS / 4
