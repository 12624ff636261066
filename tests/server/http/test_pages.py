"""Pages, files, and routes that read a body, from real servers: by default, without the hot lane,
and with several workers."""

import base64
import hashlib
import hmac
import http.client
import json
import os
import re
import socket
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import litestar_offline_docs
import pytest

from support.bundles import write_bundle
from support.serving import Server, receive, request, serving

ASSETS = sorted((Path(litestar_offline_docs.__file__).parent / "static").iterdir())
LARGEST = max(ASSETS, key=lambda file: file.stat().st_size)
PAGES = {
    "/": 200,
    "/home/home.js": 200,
    "/home/none.js": 404,
    "/docs": 200,
    "/docs/openapi.json": 200,
    "/openapi.json": 200,
    "/metrics": 200,
    "/models": 200,
    "/models/numbers": 200,
    "/health": 200,
    "/health/live": 200,
    "/health/ready": 200,
    "/bench/null": 200,
    "/models/nobody": 404,
    "/nowhere": 404,
    "/docs/nowhere": 404,
    "/docs/assets/none.js": 404,
    **{f"/docs/assets/{file.name}": 200 for file in ASSETS},
}
TOKEN, SECRET = "the-token", "the-secret"
KINDS: dict[str, dict[str, object]] = {
    "default": {},
    "plain": {"hot_lane": "false"},
    "workers": {"workers": 2},
}


@pytest.fixture(scope="module", params=KINDS)
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A server of each kind; nothing that a client did may be in its log when the last test is
    done."""
    root = tmp_path_factory.mktemp("bundles")
    write_bundle(root)
    secrets = {"admin_token": TOKEN, "webhook_secret": SECRET}
    with serving(root, bench_routes="true", **secrets, **KINDS[request.param]) as server:
        yield server
        server.stop()
        assert server.process.stderr is not None
        log = server.process.stderr.read()
        assert not re.search("ERROR|WARNING|Traceback", log), log


Answered = tuple[int, dict[str, str], bytes]


def ask(connection: http.client.HTTPConnection, method: str, path: str, **headers: str) -> Answered:
    """Status, headers without the date, and body."""
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    found = {name.lower(): value for name, value in answer.getheaders() if name.lower() != "date"}
    return answer.status, found, answer.read()


@pytest.mark.parametrize("path", PAGES)
def test_a_page_is_answered_by_get_and_by_head(server: Server, path: str) -> None:
    """The same status and headers on one connection; HEAD has no body, and GET's is as long as its
    head says."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    for _ in range(2):
        status, headers, body = ask(connection, "GET", path)
        assert status == PAGES[path]
        assert headers["content-length"] == str(len(body))
        head_status, head_headers, head_body = ask(connection, "HEAD", path)
        if path == "/metrics":  # its numbers change
            head_headers["content-length"] = headers["content-length"]
        assert (head_status, head_headers, head_body) == (status, headers, b"")
    connection.close()


@pytest.mark.parametrize("path", PAGES)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_page_is_complete_where_the_connection_is_closed(
    server: Server, method: str, path: str
) -> None:
    """The server closes it, after the last byte and not before."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall(
            request(
                path,
                method=method,
                headers={"connection": "close", "content-type": None, "content-length": None},
            )
        )
        answer = b"".join(iter(lambda: connection.recv(1 << 20), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % PAGES[path])
    length = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
    assert length is not None
    assert len(body) == (int(length[1]) if method == "GET" else 0)


@pytest.mark.parametrize("file", ASSETS, ids=lambda file: file.name)
def test_a_file_of_the_page_is_served_as_it_is(server: Server, file: Path) -> None:
    """Every byte of it."""
    answer = server.send(request(f"/docs/assets/{file.name}", method="GET"), timeout_s=30)
    assert answer.partition(b"\r\n\r\n")[2] == file.read_bytes()


def test_the_page_and_the_document_lead_to_one_another(server: Server) -> None:
    """The page names only files that are served here, and the document is the same at both
    addresses."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    page = ask(connection, "GET", "/docs")[2].decode()
    files = set(re.findall(r"""(?:src|href)=["'](/[^"']+)["']""", page))
    assert files
    assert files <= PAGES.keys()
    found = [ask(connection, "GET", path) for path in ("/openapi.json", "/docs/openapi.json")]
    assert found[0] == found[1]
    assert found[0][1]["content-type"] == "application/vnd.oai.openapi+json"
    assert json.loads(found[0][2])["openapi"] == "3.1.0"
    connection.close()


@pytest.mark.parametrize(
    "path",
    [path for path, status in PAGES.items() if status == 200 and path not in ("/bench/null",)],
)
def test_what_is_not_allowed_names_what_is(server: Server, path: str) -> None:
    """405 with `Allow`, which OPTIONS gives too; it names HEAD next to GET."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    status, headers, body = ask(connection, "DELETE", path)
    assert (status, headers["allow"], json.loads(body)["code"]) == (
        405,
        "GET, HEAD, OPTIONS",
        "method_not_allowed",
    )
    status, headers, _ = ask(connection, "OPTIONS", path)
    assert (status, headers["allow"]) == (204, "GET, HEAD, OPTIONS")
    for method in ("GET", "HEAD"):
        status, headers, _ = ask(connection, method, "/predict")
        assert (status, headers["allow"]) == (405, "OPTIONS, POST")
    connection.close()


def test_every_unknown_route_says_where_the_description_is(server: Server) -> None:
    """Also below /docs, and to a browser."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    for path in ("/nowhere", "/docs/nowhere", "/docs/nowhere.json", "/home/none.js"):
        status, headers, body = ask(connection, "GET", path, accept="text/html")
        assert (status, headers["content-type"]) == (404, "application/problem+json")
        assert json.loads(body)["detail"] == "no such route; GET /docs lists them"
    assert ask(connection, "OPTIONS", "/docs/nowhere")[0] == 404
    connection.close()


def test_the_server_itself_is_asked_for_its_methods(server: Server) -> None:
    """`OPTIONS *`, as RFC 9110 has it; any other request for `*` is for no route."""
    for method, expected in (("OPTIONS", 204), ("GET", 404)):
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
        status, headers, body = ask(connection, method, "*")
        assert status == expected
        if status == 204:
            assert (headers["allow"], body) == ("GET, HEAD, OPTIONS, POST", b"")
        assert ask(connection, "GET", "/health/live")[0] == 200
        connection.close()


def test_the_page_s_figures_are_those_of_all_workers(server: Server) -> None:
    """Whichever worker answered the predictions, and whichever is asked."""

    def answered() -> int:
        answer = server.send(request("/home/figures", method="GET"), timeout_s=30)
        count: int = json.loads(answer.partition(b"\r\n\r\n")[2])["answered"]
        return count

    before = answered()
    for _ in range(8):
        assert b" 200 " in server.send(request("/predict", b'{"features":[1,2,3,4]}'))[:20]
    wait_until(lambda: answered() >= before + 8)


# -- clients that read slowly or leave -------------------------------------------------------------


def begin(
    server: Server, path: str = f"/docs/assets/{LARGEST.name}"
) -> tuple[socket.socket, bytes]:
    """Ask for a page on a connection whose buffer is small, and read its first bytes only."""
    connection = socket.socket()
    connection.settimeout(30)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect(("127.0.0.1", server.port))
    connection.sendall(request(path, method="GET", headers={"connection": "close"}))
    return connection, connection.recv(100)


def test_clients_that_do_not_read_cost_little_memory(server: Server) -> None:
    """Of a file, and not the whole of it each; others are answered meanwhile, and whoever reads on
    gets all of it."""
    server.send(
        request(f"/docs/assets/{LARGEST.name}", method="GET"), timeout_s=30
    )  # what the first one costs for good
    before = resident_bytes(server)
    begun = [begin(server) for _ in range(40)]
    assert b" 200 " in server.send(request("/health/live", method="GET"))[:20]
    assert b'"prediction"' in server.send(request("/predict", b'{"features":[1,2,3,4]}'))
    assert resident_bytes(server) - before < 40 * LARGEST.stat().st_size / 2
    connection, first = begun[0]
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    whole = first + b"".join(iter(lambda: connection.recv(1 << 20), b""))
    assert whole.partition(b"\r\n\r\n")[2] == LARGEST.read_bytes()
    for connection, _ in begun:
        connection.close()


@pytest.mark.parametrize("reset", [True, False], ids=["by a reset", "by closing"])
def test_clients_that_leave_within_a_file_leave_nothing_behind(server: Server, reset: bool) -> None:
    """Neither a file nor a connection stays open; that the log is silent is seen at the end."""
    before = open_files(server)
    for _ in range(20):
        connection, _ = begin(server)
        if reset:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()
    wait_until(lambda: open_files(server) <= before)
    assert b" 200 " in server.send(request("/health/live", method="GET"))[:20]


@pytest.mark.parametrize("path", ["/health", "/docs", "/metrics", "/openapi.json"])
def test_clients_that_leave_before_their_answer_disturb_nobody(server: Server, path: str) -> None:
    """They ask and are gone."""
    for _ in range(20):
        connection = socket.create_connection(("127.0.0.1", server.port), timeout=30)
        connection.sendall(request(path, method="GET"))
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()
    assert b" 200 " in server.send(request(path, method="GET"), timeout_s=30)[:20]


def processes(server: Server) -> list[int]:
    """The server's process and its workers."""
    tasks = Path(f"/proc/{server.process.pid}/task").iterdir()
    return [
        server.process.pid,
        *(int(child) for task in tasks for child in (task / "children").read_text().split()),
    ]


def resident_bytes(server: Server) -> int:
    """Memory of all its processes."""
    pages = sum(
        int(Path(f"/proc/{process}/statm").read_text().split()[1]) for process in processes(server)
    )
    return pages * os.sysconf("SC_PAGE_SIZE")


def open_files(server: Server) -> int:
    """Files and connections that all its processes have open."""
    return sum(len(list(Path(f"/proc/{process}/fd").iterdir())) for process in processes(server))


def wait_until(true: Callable[[], bool]) -> None:
    """Wait until something is the case."""
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


# -- routes that read a body -----------------------------------------------------------------------


CHUNKED: dict[str, str | None] = {"content-length": None, "transfer-encoding": "chunked"}


def signed(body: bytes) -> dict[str, str | None]:
    """The headers of a webhook that MLflow sends now."""
    now = str(int(time.time()))
    digest = hmac.digest(SECRET.encode(), f"id.{now}.".encode() + body, hashlib.sha256)
    signature = f"v1,{base64.b64encode(digest).decode()}"
    return {
        "x-mlflow-delivery-id": "id",
        "x-mlflow-timestamp": now,
        "x-mlflow-signature": signature,
    }


def chunks(*parts: bytes, trailer: bytes = b"") -> bytes:
    """A chunked body."""
    return (
        b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)
        + b"0\r\n"
        + trailer
        + b"\r\n"
    )


BODY = b'{"entity":"registered_model","action":"updated"}'
LARGE = b"x" * 70_000
HOOK = "/webhooks/mlflow"
RELOAD = "/models/numbers/reload"
BODIES: dict[str, tuple[Callable[[], bytes], int]] = {
    "a webhook": (lambda: request(HOOK, BODY, headers=signed(BODY)), 204),
    "a webhook in chunks": (
        lambda: request(HOOK, chunks(BODY[:9], BODY[9:]), headers=signed(BODY) | CHUNKED),
        204,
    ),
    "a webhook with trailers": (
        lambda: request(
            HOOK,
            chunks(BODY, trailer=b"x-sum: 1\r\n"),
            headers=signed(BODY) | CHUNKED | {"trailer": "x-sum"},
        ),
        204,
    ),
    "a webhook with another body": (lambda: request(HOOK, BODY + b" ", headers=signed(BODY)), 401),
    "a webhook without a body": (lambda: request(HOOK, headers={"content-length": None}), 401),
    "a webhook that is too large": (lambda: request(HOOK, LARGE, headers=signed(LARGE)), 413),
    "a reload": (lambda: request(RELOAD, headers={"authorization": f"Bearer {TOKEN}"}), 409),
    "a reload with a body": (
        lambda: request(RELOAD, BODY, headers={"authorization": f"Bearer {TOKEN}"}),
        409,
    ),
    "a reload without its token": (lambda: request(RELOAD), 401),
    "a route that takes no body": (lambda: request("/health", BODY), 405),
    "a page with a body": (lambda: request("/health", BODY, method="GET"), 200),
}


@pytest.mark.parametrize("name", BODIES)
def test_a_body_is_read_through_every_lane(server: Server, name: str) -> None:
    """In every form; where it is not read, the answer may be sent before it."""
    make, expected = BODIES[name]
    sent = make()
    is_read = sent.startswith(b"POST /webhooks")
    parts = (
        (sent[:20], sent[20:-20], sent[-20:]) if is_read else (sent,)
    )  # within the head, and within the body
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        for part in parts:
            connection.sendall(part)
        answer = receive(connection) if expected != 204 else connection.recv(65536)
    assert answer.startswith(b"HTTP/1.1 %d " % expected), answer


def test_a_webhook_that_breaks_off_is_not_taken(server: Server) -> None:
    """The part that arrived is signed, but it is not a whole body; the server keeps working."""
    for sent in (
        request(HOOK, BODY, headers=signed(BODY) | {"content-length": str(len(BODY) + 5)}),
        request(HOOK, chunks(BODY)[:-5], headers=signed(BODY) | CHUNKED),
    ):
        with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
            assert b" 204 " not in connection.recv(65536)[:20]
    assert b" 200 " in server.send(request("/health/live", method="GET"))[:20]


@pytest.mark.parametrize("trailer", ["x-sum", None], ids=["announced", "none"])
def test_a_prediction_in_chunks_is_answered_with_or_without_trailers(
    server: Server, trailer: str | None
) -> None:
    """They say nothing of the model's inputs."""
    body = chunks(b'{"features":', b"[1,2,3,4]}", trailer=b"x-sum: 1\r\n" if trailer else b"")
    assert b'"prediction"' in server.send(
        request("/predict", body, headers=CHUNKED | {"trailer": trailer})
    )


# -- granian without what is not documented --------------------------------------------------------


HIDING = """
from granian import _futures as futures

schedule = futures._cbsched_aioschedule

def init(self, loop, callback, *_):
    futures._BaseCBScheduler.__init__(self)
    self._schedule_fn = schedule(loop, self._ctx, callback)

futures._CBSchedulerAIO.__init__ = init
del futures._cbsched_aioschedule

from halfcore.__main__ import main
raise SystemExit(main())
"""
"""A server with a granian that works, and whose private names are other ones."""


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("hot_lane", ["true", "false"])
def test_it_serves_without_granian_s_private_names(
    tmp_path: Path, hot_lane: str, workers: int
) -> None:
    """With the hot lane off they are not missed; with it on, the log says that the intake is, and
    predictions are answered all the same."""
    write_bundle(tmp_path)
    with serving(tmp_path, program=("-c", HIDING), hot_lane=hot_lane, workers=workers) as server:
        assert b'"prediction"' in server.send(request("/predict", b'{"features":[1,2,3,4]}'))
        server.stop()
        assert server.process.stderr is not None
        log = server.process.stderr.read()
    # A worker that was still starting when the server was stopped has logged nothing.
    assert log.count("the intake is off") in (range(1, workers + 1) if hot_lane == "true" else [0])
    assert "ERROR" not in log


def test_one_module_uses_granian_s_private_names() -> None:
    """So that a granian with other private names breaks nothing: that module looks for them
    first."""
    source = Path(__file__).parents[3] / "server" / "src"
    private = re.compile(r"granian\._(futures|granian)|_cbsched|\.wrks|\.signal_handler_interrupt")
    users = [file.name for file in source.rglob("*.py") if private.search(file.read_text())]
    assert users == ["granian_private.py"]
