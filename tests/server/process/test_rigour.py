"""HTTP read strictly, in both lanes, directly and behind HAProxy: never two answers to one request,
never an error of the server, and the workers live on."""

import json
import random
import socket
from collections.abc import Iterator
from contextlib import suppress

import pytest

from support import haproxy
from support.bundles import write_bundle
from support.framings import FRAMINGS
from support.header_values import drawn, routes_of
from support.processes import GOOD, connect, prediction, read_all, status, statuses, workers
from support.serving import Server, request, serving

TARGETS = {
    "hot": b"POST /predict ",
    "v2": b"POST /v2/models/sum/infer ",
    "webhook": b"POST /webhooks/mlflow ",
    "no route": b"POST /no/such/route ",
    "GET": b"GET /health ",
}
QUIET_S = 0.2
"""Seconds without a byte after which an answer is taken for complete."""


@pytest.fixture(
    scope="module",
    params=[
        pytest.param("true", id="hot lane"),
        pytest.param("false", id="plain ASGI", marks=pytest.mark.slow),
    ],
)
def server(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Server]:
    """Serves `sum` in each lane; its process and its workers must live when the last test is
    done."""
    root = tmp_path_factory.mktemp("bundles")
    write_bundle(root, "sum", task="regression")
    secrets = {"webhook_secret": "w" * 32, "admin_token": "t" * 32}
    with serving(
        root, hot_lane=request.param, body_timeout_s=2, max_body_bytes=65536, **secrets
    ) as server:
        before = workers(server)
        yield server
        assert workers(server) == before
        assert server.process.poll() is None


def answered(port: int, sent: bytes) -> bytes:
    """Send, and read until nothing more arrives; then say that nothing more will be sent."""
    data = b""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        with suppress(OSError):  # the server may have answered and closed already
            connection.sendall(sent)
        connection.settimeout(QUIET_S)
        with suppress(OSError):
            while chunk := connection.recv(65536):
                data += chunk
        connection.settimeout(60)
        with suppress(OSError):
            connection.shutdown(socket.SHUT_WR)
        return data + read_all(connection)


@pytest.mark.parametrize("name", FRAMINGS)
def test_hostile_framing_gets_one_answer_or_none(server: Server, name: str) -> None:
    """On a route of each kind: never an answer to a request that was hidden in another's body,
    never a 5xx, and the server serves on."""
    for target, line in TARGETS.items():
        answer = answered(server.port, FRAMINGS[name].replace(b"POST /predict ", line, 1))
        _judge(name, target, answer)
        if FRAMINGS[name].count(b"POST /predict ") == 0:
            break  # it has its own route
    assert prediction(server.send(request("/predict", GOOD))) == 10.5


def _judge(name: str, target: str, answer: bytes) -> None:
    found = statuses(answer)
    assert [code for code in found if code >= 500 or code < 200] == [], (target, answer)
    assert b"smuggled" not in answer, (target, answer)
    assert b"secret: 7" not in answer, (target, answer)
    if "TE" in name or "length" in name:
        assert len(found) <= 1 or set(found[1:]) == {400}, (target, answer)


@pytest.fixture(scope="module")
def balanced(
    server: Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[haproxy.Balancer]:
    """HAProxy before that server."""
    if haproxy.missing():
        pytest.skip("no haproxy; Debian: haproxy")
    with haproxy.balancing(tmp_path_factory.mktemp("haproxy"), [server.port]) as balancer:
        balancer.until([True])
        yield balancer


@pytest.mark.slow
def test_hostile_framing_confuses_no_balancer(server: Server, balanced: haproxy.Balancer) -> None:
    """HAProxy may take the hidden request for a second one of the same client; but both read the
    same, so the next client on their connection gets its own answer."""
    for name, sent in FRAMINGS.items():
        for target in ("hot", "webhook"):
            changed = sent.replace(b"POST /predict ", TARGETS[target], 1)
            answer = answered(balanced.port, changed)
            wrong = [code for code in statuses(answer) if code >= 500 or code < 200]
            assert wrong == [], (name, target, answer)
            assert b"secret: 7" not in answer, (name, target, answer)
        whole = answered(balanced.port, request("/predict", GOOD, headers={"connection": "close"}))
        assert prediction(whole) == 10.5, name


def test_strange_headers_cost_no_error_of_the_server(server: Server) -> None:
    """400 requests to all routes, with headers, queries and paths that are parsed late: one answer
    each, and none above 499."""
    document = server.send(request("/openapi.json", method="GET"))
    routes = routes_of(json.loads(document.partition(b"\r\n\r\n")[2]), "sum")
    draw = random.Random(19)  # noqa: S311  to be repeatable
    for _ in range(400):
        sent = drawn(draw, routes, GOOD)
        with connect(server) as connection:
            connection.sendall(sent)
            head = b""
            while b"\r\n\r\n" not in head and (chunk := connection.recv(65536)):
                head += chunk
        assert statuses(head), sent
        assert statuses(head)[0] < 500, (sent, head)


@pytest.mark.parametrize("path", ["/health", "/docs", "/no/such/route", "/v2/no/such/route"])
@pytest.mark.parametrize("host", ["a b/c@d:99999", "x: 80", "x:99999", "[::1", "x:-1", "", "a?b"])
def test_a_host_that_is_no_host_costs_no_500(server: Server, path: str, host: str) -> None:
    """A Host header that cannot be part of an address is refused or ignored, never an error of the
    server."""
    sent = {"host": host, "connection": "close"}
    assert status(server.send(request(path, method="GET", headers=sent))) in (200, 400, 404)
