"""`verify` finds every answer of a server that is not the registered model's."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest
from sklearn.tree import DecisionTreeClassifier

from model_export.__main__ import main

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


class Server(ThreadingHTTPServer):
    """Says whether a number is positive; wrong for one of them if asked to be, or refuses them
    all."""

    wrong_for: float | None = None
    status = 200
    paths: set[str]


class Handler(BaseHTTPRequestHandler):
    """One route, as the server has it."""

    protocol_version = "HTTP/1.1"
    # One packet per answer: two would each wait for the other side's delayed acknowledgement
    wbufsize = 65536
    server: Server

    def do_POST(self) -> None:  # the name is http.server's
        """Answer a record or a list of records."""
        self.server.paths.add(self.path)
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        answer = (
            [self._sign(record["a"]) for record in body]
            if isinstance(body, list)
            else self._sign(body["a"])
        )
        content = json.dumps({"prediction": answer}).encode()
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _sign(self, number: float) -> str:
        sign = "plus" if number > 0 else "minus"
        return "wrong" if number == self.server.wrong_for else sign

    def log_message(self, *arguments: Any) -> None:
        """Stay quiet."""


@pytest.fixture
def server() -> Iterator[Server]:
    """A server on a free port."""
    found = Server(("127.0.0.1", 0), Handler)
    found.paths = set()
    thread = threading.Thread(target=found.serve_forever, daemon=True)
    thread.start()
    yield found
    found.shutdown()
    thread.join()
    found.server_close()


@pytest.fixture
def sign(save: Callable[..., Path], tmp_path: Path, server: Server) -> list[str]:
    """The command line that verifies the sign model on 1,200 numbers."""
    frame = pd.DataFrame({"a": [i - 600.5 for i in range(1200)]})
    model = DecisionTreeClassifier().fit(frame, ["plus" if a > 0 else "minus" for a in frame["a"]])
    folder = save(model, frame, name="sign")
    url = f"http://127.0.0.1:{server.server_port}"
    return [
        "verify",
        str(folder),
        "--url",
        url,
        "--tracking-uri",
        f"sqlite:///{tmp_path}/mlflow.db",
    ]


def test_a_server_that_agrees_passes(
    sign: list[str], server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every row in batches, a hundred one by one; the counts are printed."""
    assert main(sign) == 0
    assert (
        "1,200 rows in batches: 0 differ; 100 rows one by one: 0 differ" in capsys.readouterr().err
    )
    assert server.paths == {"/models/sign/predict"}


def test_one_wrong_answer_fails(
    sign: list[str], server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit status 1 and the count."""
    server.wrong_for = -599.5

    assert main(sign) == 1
    assert "1,200 rows in batches: 1 differ" in capsys.readouterr().err


def test_the_counts_as_json(
    sign: list[str], server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    """Alone on standard output; the exit status is the same."""
    server.wrong_for = -599.5

    assert main([*sign, "--json"]) == 1
    assert json.loads(capsys.readouterr().out) == {"models": [{"uri": sign[1], "differ": 1}]}


def test_a_refusal_is_one_line(
    sign: list[str], server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    """With status and answer."""
    server.status = 422

    assert main(sign) == 1
    assert "/models/sign/predict answers 422" in capsys.readouterr().err


def test_a_server_that_is_not_there_is_one_line(
    sign: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit status 1."""
    sign[sign.index("--url") + 1] = "http://127.0.0.1:9"

    assert main(sign) == 1
    assert "does not answer" in capsys.readouterr().err


def test_a_service_without_batches_is_asked_row_by_row(
    sign: list[str], server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    """At the path that is given, on several connections, with every answer held against its own
    row."""
    assert main([*sign, "--path", "/predict"]) == 0
    assert "1,200 rows one by one: 0 differ" in capsys.readouterr().err
    assert server.paths == {"/predict"}

    server.wrong_for = -600.5
    assert main([*sign, "--path", "/predict", "--rows", "50"]) == 1
    assert "50 rows one by one: 1 differ" in capsys.readouterr().err
