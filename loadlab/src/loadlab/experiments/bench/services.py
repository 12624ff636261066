"""The real servers that some of the measured ones use, on loopback: a PostgreSQL for prediction log
and feature catalogue, with the proof that both were used, and an MLflow server and a PostgreSQL
that the first baselines ask on every request.

They run in control groups of their own, on the client's CPU: in production registry and database
are on other machines, so their work is not charged to the measured server. What the server itself
spends on them is in its figures.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

from loadlab.experiments.bench.subjects import Place
from loadlab.generator.epoll.answer import ask
from loadlab.target.cgroup import Limits
from loadlab.target.process import CannotStart, Command, free_port, running
from loadlab.target.programs import Case, baseline_program, clean_environment

_CPUS = str((os.cpu_count() or 1) - 1)
_START_S = 120.0
_starting = partial(running, limits=Limits(), cpus=_CPUS, ready_timeout_s=_START_S)
_SQLITE = "sqlite:///"
_BOUNDED = ("number", "integer")
_WIDE = 1 << 53
"""Bounds that no row of a case exceeds: the catalogue is applied, and refuses nothing. Beyond it an
integer column takes none."""


@contextmanager
def with_log(place: Place) -> Iterator[Place]:
    """Start PostgreSQL, apply halfcore's migrations, and yield the place with it.

    Raises:
        CannotStart: it does not start, or the migrations fail.
        cgroup.Unavailable: see `running`.
    """
    port = free_port()
    command = baseline_program(place.root, "rival.database", "serve", "--port", str(port))
    with _starting("database", replace(command, ready_path=""), port=port) as server:
        found = replace(place, log=server)
        _migrate(found)
        yield found


@contextmanager
def with_surroundings(place: Place) -> Iterator[Place]:
    """Start MLflow and PostgreSQL, and yield the place with their addresses.
    `BASELINE_TRACKING_URI` and `BASELINE_DATABASE_URL` name others instead.

    Raises:
        CannotStart: one of them does not start, or the registry is no SQLite file to serve.
        cgroup.Unavailable: see `running`.
    """
    uri, url = os.environ.get("BASELINE_TRACKING_URI"), os.environ.get("BASELINE_DATABASE_URL")
    if uri and url:
        yield replace(place, tracking_uri=uri, database=url)
        return
    if not place.tracking_uri.startswith(_SQLITE):
        raise CannotStart(
            f"registry {place.tracking_uri}: expected {_SQLITE}FILE, or BASELINE_TRACKING_URI and "
            "BASELINE_DATABASE_URL"
        )
    registry, database = free_port(), free_port()
    ports = ["--mlflow-port", str(registry), "--postgres-port", str(database)]
    words = ["--store", place.tracking_uri.removeprefix(_SQLITE), *ports]
    command = baseline_program(place.root, "rival.surroundings", *words)
    with _starting("surroundings", command, port=registry):
        # The registry's first seconds are busy, and would be the first server's noise.
        time.sleep(1.0)
        url = url or f"postgresql+psycopg://rival@127.0.0.1:{database}/postgres"
        uri = uri or f"http://127.0.0.1:{registry}"
        yield replace(place, tracking_uri=uri, database=url)


STARTED = {"surroundings": with_surroundings, "log": with_log}
"""By the need of a subject."""


def prepare_log(place: Place, case: Case) -> None:
    """Empty the log, and give each of the model's numbers bounds in the catalogue."""
    manifest = json.loads((case.bundle / "manifest.json").read_text())
    values = ", ".join(
        f"({_quoted(manifest['name'])}, {_quoted(column['name'])}, {-_WIDE}, {_WIDE})"
        for column in manifest["inputs"]
        if column["kind"] in _BOUNDED
    )
    _query(place, "TRUNCATE halfcore.prediction_log; TRUNCATE halfcore.feature_catalogue")
    if values:
        names = "model, column_name, minimum, maximum"
        _query(place, f"INSERT INTO halfcore.feature_catalogue ({names}) VALUES {values}")  # noqa: S608


def catalogue_missing(case: Case, port: int) -> str:
    """Why the running server does not apply the catalogue, or nothing."""
    head = f"GET /models/{case.model} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n"
    status, body = ask("127.0.0.1", port, head.encode())
    columns = json.loads(body)["inputs"] if status == 200 else []
    sources = {column["source"] for column in columns if column["kind"] in _BOUNDED}
    if status == 200 and sources <= {"catalogue"}:
        return ""
    return f"the feature catalogue is not applied: {status} {body[:200].decode(errors='replace')}"


def rows_doubt(place: Place, *, answers: int, open_at_end: int) -> str:
    """What is wrong with the log after the server's end, or nothing.

    Args:
        place: with the database.
        answers: right ones that the client saw, each of which must have a row.
        open_at_end: requests that were on the way when the client left, which may have one.
    """
    rows = int(_query(place, "SELECT count(*) FROM halfcore.prediction_log"))
    if answers <= rows <= answers + open_at_end:
        return ""
    return f"the log holds {rows:,} rows, expected {answers:,} (and at most {open_at_end} more)"


def _migrate(place: Place) -> None:
    """PostgreSQL takes connections a moment before it answers: tried until it does."""
    deadline = time.monotonic() + _START_S
    environment = clean_environment() | {"DATABASE_URL": place.log_url}
    command = Command([sys.executable, "-m", "halfcore", "migrate"], environment, place.root)
    while _run(command).returncode and time.monotonic() < deadline:
        time.sleep(0.1)
    _output(command)


def _query(place: Place, sql: str) -> str:
    if place.log is None:
        raise CannotStart("no database was started for the prediction log")
    port = str(place.log.port)
    return _output(baseline_program(place.root, "rival.database", "ask", "--port", port, sql))


def _run(command: Command) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(  # noqa: S603  our own words
        command.arguments,
        cwd=command.folder,
        env=command.environment,
        capture_output=True,
        text=True,
        check=False,
    )


def _output(command: Command) -> str:
    done = _run(command)
    if done.returncode:
        raise CannotStart(f"the log's database: {done.stderr.strip()[-300:]}")
    return done.stdout.strip()


def _quoted(text: str) -> str:
    """As SQL, for a driver to which a colon begins a parameter."""
    return "'" + text.replace("'", "''").replace(":", r"\:") + "'"
