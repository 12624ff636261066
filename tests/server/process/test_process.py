"""A real server process and clients that behave, misbehave, or leave."""

import os
import random
import re
import select
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from support.bodies import REFUSED, RIGHT, VECTOR, dumped
from support.bundles import MIXED, write_bundle
from support.client import parsed
from support.processes import (
    GOOD,
    connect,
    cpu_s,
    exchange,
    expensive,
    prediction,
    read_all,
    status,
    statuses,
    workers,
)
from support.serving import Server, receive, request, serving, starting

CHUNKED = {"content-length": None, "transfer-encoding": "chunked"}
SETTINGS = {
    "default_model": "sum",
    "max_body_bytes": 65536,
    "max_rows": 1000,
    "body_timeout_s": 2,
    "idle_timeout_s": 5,
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Serves `sum` (the default) and `mixed`; the same workers must live when the last test is
    done."""
    root = tmp_path_factory.mktemp("bundles")
    write_bundle(root, "sum", task="regression")
    write_bundle(root, "mixed", inputs=MIXED)
    with serving(root, **SETTINGS) as server:
        before = workers(server)
        yield server
        assert workers(server) == before
        assert server.process.poll() is None


def metrics(server: Server) -> dict[tuple[str, ...], float]:
    """The server's metrics now."""
    return parsed(server.send(request("/metrics", method="GET")).partition(b"\r\n\r\n")[2].decode())


def until(server: Server, sample: tuple[str, ...], value: float) -> None:
    """Wait for a metric to have this value."""
    deadline = time.monotonic() + 90
    while metrics(server).get(sample) != value:
        assert time.monotonic() < deadline, f"{sample} is {metrics(server).get(sample)}"


# -- connections -----------------------------------------------------------------------------------


def test_a_connection_is_kept_alive(server: Server) -> None:
    """Request after request on one connection, also after a refusal of a value."""
    with connect(server) as connection:
        for body, expected in ((GOOD, 200), (b"{", 400), (GOOD, 200), (b"[]", 422), (GOOD, 200)):
            connection.sendall(request("/predict", body))
            assert status(receive(connection)) == expected


def test_pipelined_requests_are_answered_in_order(server: Server) -> None:
    """Ten requests sent at once get ten answers, each its own."""
    sent = [request("/predict", dumped({"features": [i, 0, 0, 0]})) for i in range(10)]
    closing = request(
        "/predict", dumped({"features": [10, 0, 0, 0]}), headers={"connection": "close"}
    )

    answer = exchange(server, b"".join(sent) + closing)

    assert [float(value) for value in re.findall(rb'"prediction":([\d.]+)', answer)] == list(
        range(11)
    )


def test_a_chunked_body_is_read(server: Server) -> None:
    """Also in chunks of one byte that arrive one by one."""
    with connect(server) as connection:
        connection.sendall(request("/predict", headers=CHUNKED))
        for i in range(len(GOOD)):
            connection.sendall(b"1\r\n" + GOOD[i : i + 1] + b"\r\n")
        connection.sendall(b"0\r\n\r\n")

        assert prediction(receive(connection)) == 10.5


def test_a_slow_body_is_408(server: Server) -> None:
    """A client that trickles is told so and cut off after body_timeout_s, and not long after;
    others are served meanwhile."""
    start = time.monotonic()
    with connect(server) as connection:
        connection.sendall(request("/predict", b"{", headers={"content-length": "100"}))
        assert status(server.send(request("/predict", GOOD))) == 200
        answer = read_all(connection)

    assert status(answer) == 408
    assert b"body_too_slow" in answer
    assert b"connection: close" in answer.lower()
    assert 2 <= time.monotonic() - start < 30


def test_a_body_that_breaks_off_disturbs_nobody(server: Server) -> None:
    """Clients that leave in the middle of a head or a body cost no answer of another's."""
    whole = request("/predict", GOOD)
    for cut in range(1, len(whole)):
        with connect(server) as connection:
            connection.sendall(whole[:cut])
    assert prediction(server.send(whole)) == 10.5


def test_a_client_that_resets_disturbs_nobody(server: Server) -> None:
    """Connections that are torn down after a whole request leave nothing behind."""
    for _ in range(50):
        with connect(server) as connection:
            connection.sendall(request("/predict", GOOD))
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    assert prediction(server.send(request("/predict", GOOD))) == 10.5


@pytest.mark.parametrize(
    ("sent", "expected", "code"),
    [
        (request("/predict", b"x" * 70_000), 413, b"body_too_large"),
        (request("/predict", headers={"content-length": "99999999999999"}), 413, b"body_too_large"),
        (
            request("/predict", headers=CHUNKED) + b"11170\r\n" + b" " * 70_000 + b"\r\n0\r\n\r\n",
            413,
            b"body_too_large",
        ),
        (
            request("/predict", GOOD, headers={"content-encoding": "br"}),
            415,
            b"unsupported_encoding",
        ),
        (
            request("/predict", GOOD, headers={"content-type": "text/plain"}),
            415,
            b"unsupported_media_type",
        ),
    ],
    ids=["a long body", "a long Content-Length", "many chunks", "br", "text"],
)
def test_what_is_not_wanted_is_not_read(
    server: Server, sent: bytes, expected: int, code: bytes
) -> None:
    """The head or the count decides, and the connection is closed with the answer."""
    answer = exchange(server, sent)

    assert status(answer) == expected
    assert code in answer
    assert b"connection: close" in answer.lower()


# -- fuzz ------------------------------------------------------------------------------------------


def mutated(random_: random.Random, data: bytes) -> bytes:
    """Some bytes changed, taken out, put in or repeated."""
    result = bytearray(data)
    for _ in range(random_.randint(1, 3)):
        at = random_.randrange(len(result) + 1)
        match random_.randrange(8):
            case 0:
                result[at : at + 1] = bytes([random_.randrange(256)])
            case 1:
                del result[at : at + random_.randint(1, 8)]
            case 2:
                result[at:at] = random_.choice(
                    [
                        b'"',
                        b"\\",
                        b"{",
                        b"[",
                        b"]",
                        b"}",
                        b",",
                        b":",
                        b"0",
                        b"-",
                        b"\0",
                        b"\xff",
                        b"null",
                        b"1e999",
                        b"\r\n",
                        b" ",
                    ]
                )
            case 3:
                result[at:at] = result[at : at + random_.randint(1, 30)]
            case 4:
                result[at:at] = result[:at][-20:] * random_.randint(1, 5)
            case _:
                digits = [i for i, byte in enumerate(result) if chr(byte).isalnum()]
                if digits:
                    result[random_.choice(digits)] = random_.choice(b"0123456789ae")
    return bytes(result)


def test_mutated_bodies_never_get_a_500(server: Server) -> None:
    """1,500 damaged bodies on one kept-alive connection: each gets one answer, and none above
    499."""
    random_ = random.Random(7)  # noqa: S311  to be repeatable
    seeds = [
        dumped(RIGHT),
        dumped([RIGHT, RIGHT]),
        dumped({"features": VECTOR}),
        *(case.body for case in REFUSED if len(case.body) < 1000),
    ]
    found: dict[int, int] = {}
    with connect(server) as connection:
        for _ in range(1500):
            body = mutated(random_, random_.choice(seeds))
            connection.sendall(request("/models/mixed/predict", body))
            answer = receive(connection)
            code = status(answer)
            found[code] = found.get(code, 0) + 1
            assert code < 500, (body, answer)
    assert set(found) <= {200, 400, 413, 422}
    assert len(found) >= 3


def test_mutated_requests_never_get_a_500(server: Server) -> None:
    """500 damaged requests, heads and all: answers below 500 or none, and the server serves on."""
    random_ = random.Random(11)  # noqa: S311  to be repeatable
    seeds = [
        request("/predict", GOOD),
        request("/models/mixed", method="GET"),
        request("/predict", headers=CHUNKED) + b"2\r\n{}\r\n0\r\n\r\n",
    ]
    for _ in range(500):
        sent = mutated(random_, random_.choice(seeds))
        answer = exchange(server, sent, half_close=True)
        assert [code for code in statuses(answer) if code >= 500] == [], (sent, answer)
    assert prediction(server.send(request("/predict", GOOD))) == 10.5


def test_bombs_are_refused_quickly(server: Server) -> None:
    """Depth, digits and many names cost milliseconds of CPU time, not memory."""
    bombs = [
        b"[" * 60_000,
        b'{"a":' * 10_000,
        b'{"features":[' + b"9" * 60_000 + b"]}",
        b"{" + b'"a":1,' * 10_000 + b'"a":1}',
    ]
    for bomb in bombs:
        before_s = cpu_s(server.process.pid)
        assert status(server.send(request("/predict", bomb))) in (400, 422)
        assert cpu_s(server.process.pid) - before_s < 1.0


# -- silence ---------------------------------------------------------------------------------------


def test_it_phones_nobody(server: Server) -> None:
    """Of all network sockets of the server's processes, each is the listener or a connection that
    the listener accepted."""
    assert status(server.send(request("/predict", GOOD))) == 200
    with connect(server) as connection:
        connection.sendall(request("/predict", GOOD))
        receive(connection)
        found = [
            socket
            for pid in (server.process.pid, *workers(server))
            for socket in network_sockets(pid)
        ]

    assert found
    assert {port for _, port in found} == {server.port}, found


def network_sockets(pid: int) -> list[tuple[str, int]]:
    """Protocol and local port of a process's internet sockets, read from /proc."""
    inodes = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        target = str(descriptor.readlink())
        if target.startswith("socket:["):
            inodes.add(target[8:-1])
    found = []
    for protocol in ("tcp", "tcp6", "udp", "udp6", "raw", "raw6"):
        for line in Path(f"/proc/{pid}/net/{protocol}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[9] in inodes:
                found.append((protocol, int(fields[1].rpartition(":")[2], 16)))
    return found


# -- the end ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("hot_lane", ["true", "false"])
def test_sigterm_answers_what_was_accepted(tmp_path: Path, hot_lane: str) -> None:
    """With 60 requests in the queue: each is answered with its own answer, the listener is gone,
    and the exit code is 0."""
    golden = [{"row": dict.fromkeys(("x0", "x1", "x2", "x3"), 1), "prediction": 4.0}]
    write_bundle(tmp_path, "dear", task="regression", model=expensive(), changes={"golden": golden})
    with (
        serving(tmp_path, hot_lane=hot_lane, max_batch_size=1, inline_budget_ms=0) as server,
        ExitStack() as stack,
    ):
        connections = [stack.enter_context(connect(server)) for _ in range(60)]
        for i, connection in enumerate(connections):
            connection.sendall(request("/predict", dumped({"features": [i, 1, 0, 0]})))
        until(server, ("halfcore_stage_duration_seconds_count", "dear", "decode"), len(connections))
        assert metrics(server)["halfcore_queued_rows", "dear"] > 0

        server.process.send_signal(signal.SIGTERM)
        answers = [receive(connection) for connection in connections]

        assert [status(answer) for answer in answers] == [200] * len(connections)
        assert [prediction(answer) for answer in answers] == [
            pytest.approx(i + 1, rel=1e-3) for i in range(len(connections))
        ]
        assert server.process.wait(90) == 0
        with pytest.raises(ConnectionError):
            connect(server)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_an_idle_server_ends_promptly(tmp_path: Path, name: str) -> None:
    """Open connections without a request are closed without waiting for them, and the exit code is
    0."""
    write_bundle(tmp_path)
    with (
        serving(tmp_path, drain_timeout_s=600) as server,
        connect(server) as used,
        connect(server) as unused,
    ):
        used.sendall(request("/predict", GOOD))
        assert status(receive(used)) == 200
        server.process.send_signal(getattr(signal, name))

        assert server.process.wait(90) == 0
        assert read_all(used) == read_all(unused) == b""


@pytest.mark.parametrize("workers", [1, 2])
def test_a_balancer_may_look_away_before_the_listener_closes(tmp_path: Path, workers: int) -> None:
    """After SIGTERM readiness says no while everything is still answered; a second SIGTERM ends
    that at once."""
    write_bundle(tmp_path, "sum", task="regression")
    with serving(tmp_path, workers=workers, predrain_s=600) as server:
        server.process.send_signal(signal.SIGTERM)
        for _ in range(100):  # each connection may meet either worker
            while status(server.send(request("/health/ready", method="GET"))) != 503:
                assert server.process.poll() is None
        assert status(server.send(request("/predict", GOOD))) == 200
        assert status(server.send(request("/health/live", method="GET"))) == 200

        assert server.stop() == 0


def test_the_moment_before_the_end_ends_by_itself(tmp_path: Path) -> None:
    """One signal suffices."""
    write_bundle(tmp_path)
    with serving(tmp_path, predrain_s=0.3) as server:
        assert server.stop() == 0


def test_workers_do_not_outlive_their_supervisor(tmp_path: Path) -> None:
    """If the parent is killed, the worker ends too: it would keep the port and answer on,
    unsupervised."""
    write_bundle(tmp_path)
    with serving(tmp_path, workers=2) as server:
        watched = [os.pidfd_open(pid) for pid in workers(server)]
        assert len(watched) == 2
        server.process.kill()
        server.process.wait(90)
        for worker in watched:
            assert select.select([worker], [], [], 90)[0], "a worker lives on"
            os.close(worker)


@pytest.mark.parametrize("wanted", [1, 2])
@pytest.mark.parametrize("lane", ["true", "false"])
def test_a_worker_that_still_starts_heeds_sigterm(tmp_path: Path, lane: str, wanted: int) -> None:
    """Forked but without a handler of its own, a worker once took SIGTERM for its supervisor's: it
    was waited for until it was killed."""
    write_bundle(tmp_path)
    with starting(tmp_path, workers=2, hot_lane=lane, drain_timeout_s=600) as server:
        deadline = time.monotonic() + 90
        while len(workers(server)) < wanted:
            assert time.monotonic() < deadline
            assert server.process.poll() is None
        assert server.stop() == 0  # waits 90 s


def test_several_workers_answer_and_are_counted_together(tmp_path: Path) -> None:
    """Whichever worker a scrape reaches, it tells what all have answered."""
    write_bundle(tmp_path)
    with serving(tmp_path, workers=2) as server:
        for _ in range(40):
            assert b" 200 " in server.send(request("/predict", GOOD))[:20]
        deadline = time.monotonic() + 90
        while (counted := {requests_counted(server) for _ in range(8)}) != {
            40
        } and time.monotonic() < deadline:
            time.sleep(0.1)  # each worker leaves its counts once a second
        assert counted == {40}
        assert server.stop() == 0


def requests_counted(server: Server) -> int:
    """The requests that a scrape tells of."""
    answer = server.send(request("/metrics", method="GET")).decode()
    return (
        int(float(re.findall(r"^halfcore_requests_total\{.*\} (\S+)$", answer, re.MULTILINE)[0]))
        if "requests_total{" in answer
        else 0
    )


def test_a_broken_bundle_does_not_stop_the_start(tmp_path: Path) -> None:
    """The other models are served, and the log says once, in one line, why this one is not."""
    write_bundle(tmp_path, "good")
    write_bundle(tmp_path, "broken", changes={"format": 7})
    with serving(tmp_path, default_model="good") as server:
        assert status(server.send(request("/predict", GOOD))) == 200
        assert server.stop() == 0
        assert server.process.stderr is not None
        lines = [line for line in server.process.stderr.read().splitlines() if "broken" in line]

    assert len(lines) == 1
    assert "ERROR" in lines[0]
    assert "$.format" in lines[0]
