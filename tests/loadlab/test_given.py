"""What `just load target=…` says of a server that cannot be measured."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from loadlab.generator.plan import scenarios
from loadlab.run import given
from loadlab.run.order import Order, parse
from loadlab.target.serving import BackendFailed
from loadlab.words import UsageError


@contextmanager
def saying(answer: bytes) -> Iterator[int]:
    """A server that answers each connection with these bytes and closes it."""

    def serve() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            with connection:
                connection.recv(1 << 16)
                connection.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve)
        thread.start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)
        thread.join()


def of(target: str) -> Order:
    """An order for it."""
    return parse([f"target={target}", "model=iris"], {}, scenarios())


def answer(status: int) -> bytes:
    """An answer with this status."""
    return f"HTTP/1.1 {status} X\r\ncontent-length: 2\r\n\r\nno".encode()


@pytest.mark.parametrize(
    ("said", "advice"),
    [
        (answer(307), "follows no redirects"),
        (answer(401), "sends no key"),
        (answer(403), "sends no key"),
        (answer(404), "For another path give the address of a proxy that changes it"),
        (answer(422), "Name the model that answers there with model="),
        (answer(500), "Look into the server's log, and name the model"),
        (answer(503), "Wait until it is ready"),
        (b"\x15\x03\x01\x00\x02\x02\x46", "If it expects HTTPS"),
    ],
)
def test_each_refusal_has_the_advice_that_mends_it(said, advice, tmp_path: Path):
    """A missing key is no wrong model, nor is a redirect another row."""
    with saying(said) as port, pytest.raises(BackendFailed) as raised:
        given.ask(of(f"http://127.0.0.1:{port}"), tmp_path)
    text = str(raised.value)
    assert advice in text
    assert f"to http://127.0.0.1:{port}/predict." in text


def test_what_says_itself_what_to_do_gets_no_other_advice(tmp_path: Path):
    """Rows of a model without a bundle, and answers in chunks."""
    chunks = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n"
    with saying(chunks) as port, pytest.raises(BackendFailed) as raised:
        given.ask(of(f"127.0.0.1:{port}"), tmp_path)
    assert str(raised.value).endswith("the server must send its Content-Length")


@pytest.mark.parametrize("target", ["http://me:secret@127.0.0.1:8000", "127.0.0.1:8000?key=secret"])
def test_a_user_or_a_query_is_refused_and_not_repeated(target):
    """They would be left out without a word; passwords do not belong into a record."""
    with pytest.raises(UsageError, match="the lab sends none") as raised:
        of(target)
    assert "secret" not in str(raised.value)
