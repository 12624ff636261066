"""The admin port of a real server: what it answers, what the other port no longer does, and that it
answers while the event loop of predictions stands still."""

import json
import select
import signal
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from halfcore.__main__ import main
from support.bodies import dumped
from support.bundles import write_bundle
from support.client import parsed, wait_until
from support.processes import GOOD, connect, looping, status
from support.serving import Server, free_port, receive, request, serving

TOKEN = {"authorization": "Bearer t"}


def asked(
    server: Server,
    path: str,
    *,
    method: str = "GET",
    headers: Mapping[str, str | None] | None = None,
) -> tuple[int, Any]:
    """Status and document of an answer."""
    answer = server.send(request(path, method=method, headers=headers))
    return status(answer), json.loads(answer.partition(b"\r\n\r\n")[2])


@pytest.mark.parametrize("number", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_operators_have_a_port_of_their_own(tmp_path: Path, number: int) -> None:
    """Metrics and the administrative routes are there alone, health is on both ports, and nothing
    else is on the new one; it lives until the end, and does not hold it up."""
    write_bundle(tmp_path)
    port = free_port()
    with serving(tmp_path, admin_port=port, admin_token="t", workers=number) as server:
        admin = Server(server.process, port)
        assert asked(admin, "/health/live") == (200, {"status": "alive"})
        assert asked(admin, "/health/ready") == (200, {"status": "ready"})
        for each in (admin, server):  # each may be another worker, with a time of its own
            document = asked(each, "/health")[1]
            assert (document["status"], document["models"]["numbers"]["version"]) == ("ok", "1")
        assert status(server.send(request("/predict", GOOD))) == 200
        wait_until(lambda: _answered(admin) == 1)  # a worker reads the others' figures now and then

        reload = {"method": "POST", "headers": TOKEN}
        assert asked(admin, "/models/numbers/reload", **reload)[0] == 409
        assert asked(admin, "/models/nobody/reload", **reload)[0] == 404
        assert asked(admin, "/models/numbers/reload", method="POST")[0] == 401
        assert asked(server, "/models/numbers/reload", **reload)[0] == 404
        assert asked(server, "/metrics")[0] == 404
        missing, document = asked(admin, "/predict", method="POST")
        assert (missing, "this port has health" in document["detail"]) == (404, True)
        assert asked(server, "/health/live") == (200, {"status": "alive"})
        assert server.stop() == 0


@pytest.mark.slow
def test_it_answers_while_the_event_loop_stands_still(tmp_path: Path) -> None:
    """Liveness says so, readiness and metrics are answered, SIGTERM is seen at once; liveness is
    back when the loop turns again."""
    golden = [{"row": dict.fromkeys(("x0", "x1", "x2", "x3"), 1), "prediction": 4.0}]
    write_bundle(
        tmp_path, "looping", task="regression", model=looping(), changes={"golden": golden}
    )
    port = free_port()
    with (
        serving(tmp_path, inline_budget_ms=1000, admin_port=port, drain_timeout_s=1) as server,
        connect(server) as connection,
    ):
        admin = Server(server.process, port)
        turns = 8e6  # some seconds; more of them where that was too short to be noticed
        while not _seen_stalled(connection, turns, admin):
            assert status(receive(connection)) == 200
            turns *= 4
        code, document = asked(admin, "/health/live")
        assert code == 200 or (document["status"] == "stalled" and document["stalled_s"] >= 1)
        assert asked(admin, "/health/ready") == (200, {"status": "ready"})
        assert status(admin.send(request("/metrics", method="GET"))) == 200
        assert status(receive(connection)) == 200
        wait_until(lambda: asked(admin, "/health/live") == (200, {"status": "alive"}))

        for _ in range(200):  # a run that is expected to take a second is not on the event loop
            connection.sendall(request("/predict", dumped({"features": [1, 0, 0, 0]})))
            assert status(receive(connection)) == 200
        connection.sendall(request("/predict", dumped({"features": [1e12, 0, 0, 0]})))
        wait_until(lambda: asked(admin, "/health/live")[0] == 503)
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: _not_ready(admin))


def _answered(admin: Server) -> float:
    text = admin.send(request("/metrics", method="GET")).partition(b"\r\n\r\n")[2].decode()
    return parsed(text).get(("halfcore_requests_total", "numbers", "200", "predict"), 0.0)


def _seen_stalled(connection: socket.socket, turns: float, admin: Server) -> bool:
    """Ask for a long run; whether liveness reported it before its answer arrived."""
    connection.sendall(request("/predict", dumped({"features": [turns, 0, 0, 0]})))
    while not select.select([connection], [], [], 0)[0]:
        if asked(admin, "/health/live")[0] == 503:
            return True
    return False


def _not_ready(admin: Server) -> bool:
    try:
        return asked(admin, "/health/ready")[0] == 503
    except OSError:  # the time limit of the end was over before the question
        return admin.process.wait(90) == 1


@pytest.mark.parametrize("taken", ["port", "grpc_port"])
def test_a_port_that_predictions_have_is_refused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    taken: str,
) -> None:
    """The start stops with a sentence."""
    port = str(free_port())
    flags = ["--bundles", str(tmp_path), "--admin-port", port, f"--{taken.replace('_', '-')}", port]
    monkeypatch.setattr(sys, "argv", ["halfcore", "serve", *flags])
    with pytest.raises(SystemExit) as raised:
        main()
    assert raised.value.code == 2
    assert f"admin_port={port}: predictions have this port" in capsys.readouterr().err
