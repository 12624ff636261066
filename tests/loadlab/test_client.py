"""The load client counts right answers, and calls every other by its kind. Against a tiny server
that answers from a script."""

import resource
import selectors
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import msgspec
import pytest

from loadlab.generator import exchange
from loadlab.generator.epoll import Outcome, Plan, carry_out, check
from loadlab.generator.http import Client, Failed, Question, meaning, parse, post
from loadlab.generator.plan import PlanError
from support.misbehaving import RIGHT, Faults, misbehaving

BODY = '{"features":[5.1,3.5,1.4,0.2]}'
PREFIX = '{"prediction":"setosa"'


Script = Callable[[int], bytes | None]
"""From the request's number to the bytes to send; b"" says nothing, None closes the connection."""


def answer(body: bytes = b'{"prediction":"setosa"}', *, status: str = "200 OK") -> bytes:
    """A whole answer."""
    return f"HTTP/1.1 {status}\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


@contextmanager
def scripted(script: Script) -> Iterator[int]:
    """Serve on a free port until the block ends; yields the port. Each `recv` is one request, for
    they are small."""
    with socket.create_server(("127.0.0.1", 0), backlog=256) as listener:
        stop = threading.Event()
        thread = threading.Thread(target=_serve, args=(listener, script, stop))
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            stop.set()
            thread.join()


def _serve(listener: socket.socket, script: Script, stop: threading.Event) -> None:
    numbers = iter(range(1 << 30))
    with selectors.DefaultSelector() as selector:
        selector.register(listener, selectors.EVENT_READ)
        while not stop.is_set():
            for key, _ in selector.select(0.02):
                ready = key.fileobj
                assert isinstance(ready, socket.socket)
                if ready is listener:
                    selector.register(listener.accept()[0], selectors.EVENT_READ)
                elif not _exchange(ready, script, numbers):
                    selector.unregister(ready)
                    ready.close()
        for key in list(selector.get_map().values()):
            key.fileobj.close()  # type: ignore[union-attr]  # all are sockets


def _exchange(connection: socket.socket, script: Script, numbers: Iterator[int]) -> bool:
    try:
        if not connection.recv(65536):
            return False
        said = script(next(numbers))
        if said is None:
            return False
        connection.sendall(said)
    except OSError:
        return False
    return True


def plan(port: int, regime: str = "saturated", **changes: Any) -> Plan:
    """A short one."""
    chosen = {
        "connections": 2 if regime == "saturated" else 4,
        "seconds": 0.3,
        "warmup_s": 0,
        "rate": 1000,
        "think_s": (0.02, 0.04),
    }
    chosen |= {"regime": regime, "port": port, "body": BODY, "prefix": PREFIX, **changes}
    return Plan(**chosen)


def saturate(script: Script, **changes: object) -> Outcome:
    """A short saturated run against a script."""
    with scripted(script) as port:
        return carry_out(plan(port, **changes))


def visit(script: Script, **changes: object) -> Outcome:
    """A short sparse run against a script."""
    with scripted(script) as port:
        return carry_out(plan(port, "sparse", **{"seconds": 0.4, **changes}))


class Whole(BaseHTTPRequestHandler):
    """Reads a body to its end, and answers only if it is whole."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """The method of every request."""
        body = self.rfile.read(int(self.headers["content-length"]))
        self.wfile.write(answer() if body.endswith(b"}") else answer(status="400 Bad Request"))

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.mark.parametrize("regime", ["bulk", "sparse"])
def test_a_body_that_does_not_fit_into_the_socket_s_buffer_goes_whole(regime):
    """Such as many rows in one request."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Whole)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    body = f'{{"rows":"{"x" * (16 << 20)}"}}'
    try:
        found = carry_out(plan(server.server_port, regime, body=body, connections=1, seconds=1.0))
    finally:
        server.shutdown()
        thread.join()
        server.server_close()

    assert found.requests
    assert not found.failures
    assert not found.failures_before


@pytest.mark.parametrize("run", [saturate, visit])
def test_right_answers_are_counted_once_each(run):
    """The server and the client agree on how many requests there were, but for those that were on
    the way at an edge of the window."""
    served = 0

    def script(number):
        nonlocal served
        served = number + 1
        return answer()

    outcome = run(script)

    assert outcome.failures == {}
    assert outcome.requests == outcome.response.count
    assert 0 <= served - outcome.requests <= 8


@pytest.mark.parametrize("run", [saturate, visit])
@pytest.mark.parametrize(
    ("bad", "kind"),
    [
        (answer(b"busy", status="503 Service Unavailable"), "status_503"),
        (answer(b'{"prediction":"virginica"}'), "wrong_prediction"),
        (answer()[:-1] + b"}trailing", "wrong_body"),
        (None, "reset"),
    ],
)
def test_a_bad_answer_is_counted_by_its_kind_and_the_user_comes_again(run, bad, kind):
    """Every third answer is bad; the others still count."""
    outcome = run(lambda number: bad if number % 3 == 2 else answer())

    assert set(outcome.failures) == {kind}
    assert outcome.failures[kind] > 1
    assert outcome.requests > outcome.failures[kind]


@pytest.mark.parametrize("run", [saturate, visit])
def test_an_answer_that_never_comes_is_a_timeout(run):
    """Silence is counted apart from a reset."""
    outcome = run(lambda number: b"" if number == 0 else answer(), timeout_s=0.2)

    assert outcome.failures == {"timeout": 1}
    assert outcome.requests > 0


def test_what_is_missing_at_the_end_is_a_failure():
    """The slowest requests do not vanish with the end of the run."""
    outcome = visit(lambda _: b"", timeout_s=0.5)

    assert outcome.requests == 0
    assert outcome.failures == {"timeout": 4}


@pytest.mark.parametrize("run", [saturate, visit])
def test_an_answer_in_pieces_is_one_answer(run):
    """A cut-off answer waits for its rest instead of being called wrong; here the rest never
    arrives."""
    outcome = run(lambda _: answer()[:30], timeout_s=0.2, seconds=0.3)

    assert outcome.requests == 0
    assert set(outcome.failures) == {"timeout"}


@pytest.mark.parametrize("run", [saturate, visit])
def test_warm_up_is_not_counted_but_its_failures_are_kept(run):
    """A failure before the window is counted apart, and not lost."""
    outcome = run(lambda number: None if number == 0 else answer(), warmup_s=0.2)

    assert outcome.failures == {}
    assert outcome.failures_before == {"reset": 1}


def test_nobody_listening_is_a_failure_to_connect():
    """A dead server gives failures, not an endless run."""
    with scripted(lambda _: answer()) as port:
        pass
    outcome = carry_out(plan(port, connections=3, seconds=0.1))

    assert outcome.requests == 0
    assert outcome.failures_before == {"connect": 3}


@pytest.mark.parametrize("second", ["virginica", "setosa"])
def test_each_body_in_turn_is_held_to_its_own_answer(second: str) -> None:
    """A connection asks all of them one after another."""
    names = ["setosa", second]
    with scripted(
        lambda number: answer(b'{"prediction":"%s"}' % names[number % 2].encode())
    ) as port:
        others = ((BODY, '{"prediction":"virginica"'),)
        asked = plan(port, others=others, connections=1, seconds=0.1)
        outcome = carry_out(asked)

    assert outcome.requests
    assert set(outcome.failures) == ({"wrong_prediction"} if second == "setosa" else set())


def test_the_same_answer_again_is_right_and_another_label_of_its_length_is_not() -> None:
    """The quick comparison never passes what the parser refuses."""
    question = Question(b"", PREFIX.encode(), whole=False)
    for _ in range(2):
        assert question.is_right(answer())
        with pytest.raises(Failed, match="wrong_prediction"):
            question.is_right(answer(b'{"prediction":"sETOSA"}'))


def test_a_whole_answer_is_compared_whole() -> None:
    """Of the bench's answers only the beginning is known, of a load run's all."""
    more = answer(b'{"prediction":"setosa","more":1}')
    assert Question(b"", PREFIX.encode(), whole=False).is_right(more)
    with pytest.raises(Failed, match="wrong_prediction"):
        Question(b"", PREFIX.encode() + b"}").is_right(more)


@pytest.mark.parametrize("right", [PREFIX.encode() + b"}", b""])
def test_a_pair_of_answers_is_not_one_answer(right: bytes) -> None:
    """More bytes than one answer has cannot be for one request, whatever is expected."""
    with pytest.raises(Failed, match="wrong_body"):
        Question(b"", right).is_right(answer() + answer())


def test_an_answer_is_parsed_as_its_bytes_arrive() -> None:
    """It is whole with its last byte, not before; what is no HTTP is refused."""
    whole = answer()
    assert [parse(whole[:size]) for size in range(len(whole))] == [None] * len(whole)
    assert parse(whole) == (200, b'{"prediction":"setosa"}', 0)
    with pytest.raises(ValueError, match="not an HTTP answer: b'hello'"):
        parse(b"hello", ended=True)
    with pytest.raises(ConnectionError, match="ended within an answer"):
        parse(whole[:-1], ended=True)


def test_an_answer_in_chunks_says_what_the_server_must_send() -> None:
    """Its end would never be found; the lab would wait for it until the time is over."""
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
    with pytest.raises(ValueError, match="must send its Content-Length"):
        parse(chunked)
    with scripted(lambda _: chunked) as port:
        client = Client("127.0.0.1", port)
        with pytest.raises(exchange.NoAnswer, match="must send its Content-Length"):
            exchange.learn([BODY], client.ask)


def test_a_server_that_closes_connections_is_asked_over_new_ones() -> None:
    """After each answer, as after as many as some proxies allow: seen as "not an HTTP answer"."""
    faults = Faults(closes=True)
    with misbehaving(faults) as port:
        client = Client("127.0.0.1", port)
        learned = exchange.learn([BODY] * 20, client.ask)
        client.close()
    assert [each.answer for each in learned] == [RIGHT.decode()] * 20
    assert faults.requests == 20


def test_a_server_that_is_gone_gives_no_answer() -> None:
    """It is asked twice, and then the reason is given."""
    with scripted(lambda _: None) as port:
        client = Client("127.0.0.1", port)
        with pytest.raises(exchange.NoAnswer, match=r"was closed without an answer|reset by peer"):
            exchange.learn([BODY], client.ask)


def test_an_address_of_ipv6_stands_in_brackets() -> None:
    """Without them it is no Host header, and many servers answer 400."""
    assert b"\r\nhost: [::1]:8000\r\n" in post(("::1", 8000), "/predict", BODY)


def test_bytes_that_nobody_asked_for_are_a_failure() -> None:
    """A second answer to one request, which arrives while its user thinks."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with listener.accept()[0] as connection:
                connection.recv(65536)
                connection.sendall(answer())
                time.sleep(0.005)
                connection.sendall(answer())

        thread = threading.Thread(target=serve)
        thread.start()
        asked = plan(
            listener.getsockname()[1],
            "sparse",
            connections=1,
            seconds=0.2,
            timeout_s=0.2,
            think_s=(0.05, 0.05),
        )
        outcome = carry_out(asked)
        thread.join()

    assert outcome.requests == 1
    assert outcome.failures["wrong_body"] == 1


@pytest.mark.parametrize("host", ["192.0.2.1", "10.0.0.1", "0.0.0.1", "2001:db8::1"])
def test_load_goes_to_loopback_only(host):
    """Every other address is refused before a socket is opened."""
    with pytest.raises(PlanError, match="loopback"):
        check(plan(80, host=host))


def test_a_name_is_no_address():
    """A name could lead anywhere by the time it is looked up."""
    with pytest.raises(ValueError, match="localhost"):
        check(plan(80, host="localhost"))


def test_too_few_open_files_are_said_before_the_run():
    """The message names both numbers."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with pytest.raises(PlanError, match=f"the hard limit is {hard}"):
        check(plan(80, "sparse", connections=hard))


def test_the_command_prints_the_outcome_as_json():
    """What the lab's other process reads."""
    with scripted(lambda _: answer()) as port:
        asked = plan(port, connections=1, seconds=0.1)
        done = subprocess.run(
            [sys.executable, "-m", "loadlab.generator.epoll"],
            input=msgspec.json.encode(asked),
            capture_output=True,
            check=True,
        )

    outcome = msgspec.json.decode(done.stdout, type=Outcome)
    assert outcome.requests > 0
    assert outcome.client_cpu_s > 0


def test_the_command_says_what_is_wrong_with_a_plan():
    """One line, exit code 2."""
    asked = plan(80, host="192.0.2.1")
    done = subprocess.run(
        [sys.executable, "-m", "loadlab.generator.epoll"],
        input=msgspec.json.encode(asked).decode(),
        capture_output=True,
        text=True,
    )

    assert done.returncode == 2
    assert (
        done.stderr
        == "loadlab.generator.epoll: host 192.0.2.1: load goes to loopback addresses only\n"
    )


@pytest.mark.parametrize(
    ("kind", "shown"),
    [
        ("connect", "no connection: refused, or not accepted in time"),
        ("status_404", "status 404, expected 200"),
        ("host 'x' is wrong", "host 'x' is wrong"),
    ],
)
def test_a_failure_is_shown_as_a_sentence(kind: str, shown: str) -> None:
    """On Locust's page; a reason that is one already stays as it is."""
    assert meaning(kind) == shown
