"""Clients that are slow on purpose: each step of a request has a time limit on every route, and a
table full of them frees itself."""

import hashlib
import socket
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from halfcore.process import slow_clients
from support.bundles import write_bundle
from support.processes import GOOD, connect, status
from support.serving import receive, request, serving


@pytest.mark.parametrize("lane", ["true", pytest.param("false", marks=pytest.mark.slow)])
def test_a_slow_body_is_408_on_every_route(tmp_path: Path, lane: str) -> None:
    """Also on those of the registry and of other protocols; the connection is closed."""
    write_bundle(tmp_path)
    routes = [
        "/predict",
        "/models/iris/predict",
        "/webhooks/mlflow",
        "/invocations",
        "/v2/models/iris/infer",
        "/v1/models/iris:predict",
    ]
    secrets = {"webhook_secret": hashlib.sha256(b"x").hexdigest(), "admin_token": "t" * 20}
    with (
        serving(tmp_path, body_timeout_s=1, hot_lane=lane, **secrets) as server,
        ExitStack() as all_,
    ):
        waiting = [all_.enter_context(connect(server)) for _ in routes]
        for path, connection in zip(routes, waiting, strict=True):
            connection.sendall(request(path, b"{", headers={"content-length": "100"}))
        for path, connection in zip(routes, waiting, strict=True):
            answer = receive(connection)
            assert status(answer) == 408, (path, answer)
            assert b"connection: close" in answer.lower()


def test_a_client_that_takes_nothing_of_its_answer_is_cut_off() -> None:
    """By the kernel, on connections that the listener accepted after it was told."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        slow_clients.limit_answers(server, 0.5)
        with socket.create_connection(server.getsockname()):
            accepted, _ = server.accept()
            with accepted:
                accepted.settimeout(60)
                with pytest.raises(TimeoutError, match="timed out"):
                    accepted.sendall(bytes(64 << 20))


def test_only_slow_clients_are_closed() -> None:
    """Those that sent nothing, or sent something and have no answer; not those that pause."""
    with socket.create_server(("127.0.0.1", 0)) as server, ExitStack() as all_:
        port = server.getsockname()[1]
        pairs = {}
        for name in ("silent", "half a head", "pausing", "new"):
            if name == "new":
                time.sleep(0.3)  # the kernel's clock of the others
            client = all_.enter_context(socket.create_connection(("127.0.0.1", port)))
            accepted = all_.enter_context(server.accept()[0])
            pairs[name] = client, accepted
            if name in ("half a head", "pausing"):
                client.sendall(b"GET /")
                assert accepted.recv(100)
            if name == "pausing":
                time.sleep(0.02)
                accepted.sendall(b"answer")
                assert client.recv(100)
        pairs["half a head"][0].sendall(b"h")
        assert pairs["half a head"][1].recv(100)

        assert slow_clients.close_slow(port, unanswered_s=0.2, silent_s=0.2) == 2

        for name, (client, _) in pairs.items():
            client.settimeout(0.1)
            if name in ("silent", "half a head"):
                assert client.recv(1) == b""
            else:
                with pytest.raises(TimeoutError):
                    client.recv(1)


@pytest.mark.slow
def test_a_table_full_of_slow_clients_frees_itself(tmp_path: Path) -> None:
    """Silent clients hold every connection; one that has something to say is answered before the
    idle timeout, within which the others would be closed."""
    write_bundle(tmp_path)
    with serving(tmp_path, max_connections=20, idle_timeout_s=60) as server, ExitStack() as all_:
        for _ in range(30):
            all_.enter_context(connect(server))
        assert status(server.send(request("/predict", GOOD), timeout_s=50)) == 200
        assert server.stop() == 0
