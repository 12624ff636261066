"""The end of a real server: what was accepted is answered, whatever its clients and its event loop
do, and other signals do no harm."""

import asyncio
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from halfcore.process import listener, signals
from halfcore.process.draining import Drain, Timing
from support.bodies import dumped
from support.bundles import write_bundle
from support.eager import Eager
from support.processes import GOOD, connect, looping, status, workers
from support.serving import Server, receive, request, serving

BODIES = [dumped({"features": [number, 1, 0, 0]}) for number in range(10)]


def right(number: int, answer: Any) -> bool:
    """Whether it is the sum of the row."""
    return bool(answer["prediction"] == number + 1)


# -- one worker's end ------------------------------------------------------------------------------


class Scripted:
    """Serves nothing; says that so many requests are in progress."""

    def __init__(self, requests: int) -> None:
        self.requests = requests
        self.did: list[str] = []
        self.stopped = asyncio.Event()

    def begin_draining(self) -> None:
        """Note it."""
        self.did.append("not ready")

    def in_progress(self) -> int:
        """As scripted."""
        return self.requests

    def stop(self) -> None:
        """Note it."""
        self.did.append("stopped")
        self.stopped.set()


async def test_the_listener_is_closed_when_all_is_answered() -> None:
    """Not before, though the wait has an end; a second beginning changes nothing."""
    served = Scripted(requests=1)
    drain = Drain(served, served.stop, port=1, timing=Timing(0.0, 4000.0))
    drain.begin()
    drain.begin()
    await asyncio.sleep(0.3)
    assert served.did == ["not ready"]
    served.requests = 0
    await served.stopped.wait()
    assert served.did == ["not ready", "stopped"]


async def test_a_request_without_an_end_does_not_hold_the_listener_open() -> None:
    """It is closed after a quarter of the time that the end may take."""
    served = Scripted(requests=1)
    Drain(served, served.stop, port=1, timing=Timing(0.0, 0.4)).begin()
    await served.stopped.wait()


async def test_an_end_is_hurried_once_it_has_begun() -> None:
    """Before that, the hurry means nothing."""
    served = Scripted(requests=0)
    drain = Drain(served, served.stop, port=1, timing=Timing(600.0, 25.0))
    drain.hurry()
    assert served.did == []
    drain.begin()
    await asyncio.sleep(0)
    drain.hurry()
    assert served.did == ["not ready", "stopped"]


def test_connections_that_wait_are_accepted_and_no_new_ones() -> None:
    """The filter keeps out what begins after it; what waited has its bytes."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as early:
            early.sendall(b"early")
            (found,) = listener.listeners(port)
            with found:
                assert listener.waiting(found) == 1
                listener.keep_out(found)
                with socket.socket() as late:
                    late.settimeout(0.3)
                    with pytest.raises(TimeoutError):
                        late.connect(("127.0.0.1", port))
                accepted, _ = server.accept()
                with accepted:
                    assert accepted.recv(100) == b"early"
                    early.sendall(b"again")
                    assert accepted.recv(100) == b"again"
                assert listener.waiting(found) == 0


# -- a server's end --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "lane"),
    [
        (1, "true"),
        pytest.param(1, "false", marks=pytest.mark.slow),
        pytest.param(2, "true", marks=pytest.mark.slow),
    ],
)
def test_answers_close_their_connections_while_the_server_drains(
    tmp_path: Path, number: int, lane: str
) -> None:
    """Those of every route and lane, refusals too, so that clients go elsewhere in time."""
    write_bundle(tmp_path, "sum", task="regression")
    asked = [
        request("/predict", GOOD),
        request("/predict", GOOD, headers={"content-type": "application/json;charset=UTF-8"}),
        request("/predict", b"{"),
        request("/v2/models/sum/infer", b"{}"),
        request("/no/such/route", b"{}"),
        request("/health", method="GET"),
        request("/docs", method="GET"),
    ]
    with serving(tmp_path, workers=number, hot_lane=lane, predrain_s=600) as server:
        assert b"connection: close" not in server.send(asked[0]).lower()
        server.process.send_signal(signal.SIGTERM)
        for _ in range(100):  # each connection may meet either worker
            while status(server.send(request("/health/ready", method="GET"))) != 503:
                assert server.process.poll() is None
        for one in asked:
            answer = server.send(one)
            assert answer.lower().count(b"connection: close") == 1, answer
        assert status(server.send(asked[0])) == 200
        assert server.stop() == 0


def test_clients_without_a_pause_lose_nothing(tmp_path: Path) -> None:
    """Each gets every answer until the listener is closed; `just prove-drain` repeats it, also with
    two workers and with two servers behind HAProxy."""
    write_bundle(tmp_path, "sum", task="regression")
    with serving(tmp_path) as server:
        eager = Eager(server.port, BODIES, right)
        with eager.running():
            while eager.answered < 200:
                assert not eager.failures
            assert server.stop() == 0
    assert eager.failures == []


@contextmanager
def standing_still(
    bundles: Path, turns: float, **settings: object
) -> Iterator[tuple[Server, socket.socket]]:
    """A server whose event loop stands still, because it runs a model that takes its time; yields
    it and the connection of the request."""
    golden = [{"row": dict.fromkeys(("x0", "x1", "x2", "x3"), 1), "prediction": 4.0}]
    write_bundle(bundles, "looping", task="regression", model=looping(), changes={"golden": golden})
    body = dumped({"features": [turns, 0, 0, 0]})
    with (
        serving(bundles, inline_budget_ms=1000, **settings) as server,
        connect(server) as connection,
    ):
        connection.sendall(request("/predict", body))
        while True:
            try:
                server.send(request("/health/live", method="GET"), timeout_s=0.5)
            except TimeoutError:
                break
        yield server, connection


@pytest.mark.slow
def test_an_event_loop_that_stands_still_delays_the_end_and_nothing_else(tmp_path: Path) -> None:
    """The request is answered, and the exit code is 0."""
    with standing_still(tmp_path, 3e6, drain_timeout_s=600) as (server, connection):
        server.process.send_signal(signal.SIGTERM)
        assert status(receive(connection)) == 200
        assert server.process.wait(90) == 0


@pytest.mark.slow
def test_an_event_loop_that_stands_still_too_long_is_cut_off(tmp_path: Path) -> None:
    """The time limit holds without the loop; the exit code is 1, and the log says what to do."""
    with standing_still(tmp_path, 1e12, drain_timeout_s=1) as (server, _):
        assert server.stop() == 1
        assert server.process.stderr is not None
        assert "HALFCORE_DRAIN_TIMEOUT_S" in server.process.stderr.read()


# -- other signals ---------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_other_signals_do_no_harm(tmp_path: Path, number: int) -> None:
    """The server and its workers are the same after SIGHUP, SIGUSR1 and SIGUSR2, and answer."""
    write_bundle(tmp_path)
    with serving(tmp_path, workers=number) as server:
        before = workers(server)
        for one in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
            for pid in (server.process.pid, *before):
                os.kill(pid, one)
            for _ in range(10):
                assert status(server.send(request("/predict", GOOD))) == 200
        assert workers(server) == before
        assert server.stop() == 0


@pytest.mark.parametrize(
    ("terminal", "before", "ends"),
    [(True, signal.SIG_DFL, True), (False, signal.SIG_DFL, False), (True, signal.SIG_IGN, False)],
    ids=["a terminal", "none", "nohup"],
)
def test_a_closed_terminal_ends_its_server(
    monkeypatch: pytest.MonkeyPatch, terminal: bool, before: Any, ends: bool
) -> None:
    """SIGHUP ends a server that has a terminal, unless it was started to survive that."""
    monkeypatch.setattr(signals, "_has_terminal", lambda: terminal)
    monkeypatch.setattr(signal, "getsignal", lambda _: before)
    assert (signal.SIGHUP in signals.ending()) == ends
