"""A real PostgreSQL for the server that logs its predictions and reads a feature catalogue, and the
proof that it did both.

It runs in its own control group, outside of the measured server's, on the client's CPU: where
costs matter it is on another machine, so its work is not charged to the server. What the server
itself spends on both is in the figures.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from loadlab.experiments.bench.cases import Case
from loadlab.experiments.bench.subjects import (
    BASELINE,
    Database,
    Place,
    baseline_python,
    clean_environment,
)
from loadlab.generator.http import ask
from loadlab.target.cgroup import Limits
from loadlab.target.process import CannotStart, Command, free_port, running

_START_S = 60.0
_WIDE = 1 << 53
"""Bounds that no row of a case exceeds: the catalogue is applied, and refuses nothing. Beyond it an
integer column takes none."""
_COUNT = "SELECT count(*) FROM halfcore.prediction_log"


@contextmanager
def database(place: Place) -> Iterator[Place]:
    """Start PostgreSQL, apply halfcore's migrations, and yield the place with it.

    Raises:
        CannotStart: it does not start, or the migrations fail.
        cgroup.Unavailable: see `running`.
    """
    port = free_port()
    command = Command(
        [str(baseline_python(place.root)), "-m", "rival.database", "serve", "--port", str(port)],
        clean_environment(),
        place.root / BASELINE,
        "",
    )
    with running(
        "database",
        command,
        port=port,
        limits=Limits(),
        cpus=str((os.cpu_count() or 1) - 1),
        ready_timeout_s=_START_S,
    ) as server:
        found = Database(port, server.group.name)
        _migrate(place, found)
        yield replace(place, recorder=found)


def prepare(place: Place, case: Case) -> None:
    """Empty the log, and give each of the model's numbers bounds in the catalogue."""
    manifest = json.loads((case.bundle / "manifest.json").read_text())
    bounded = [
        column["name"] for column in manifest["inputs"] if column["kind"] in ("number", "integer")
    ]
    values = ", ".join(
        f"({_quoted(manifest['name'])}, {_quoted(name)}, {-_WIDE}, {_WIDE})" for name in bounded
    )
    _run(place, "TRUNCATE halfcore.prediction_log; TRUNCATE halfcore.feature_catalogue")
    if values:
        _run(
            place,
            "INSERT INTO halfcore.feature_catalogue (model, column_name, minimum, maximum) "  # noqa: S608
            f"VALUES {values}",
        )


def catalogue_missing(case: Case, port: int) -> str:
    """Why the running server does not apply the catalogue, or nothing."""
    status, body = ask(
        "127.0.0.1",
        port,
        (
            f"GET /models/{case.model} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n"
        ).encode(),
    )
    columns = json.loads(body)["inputs"] if status == 200 else []
    bounded = [column for column in columns if column["kind"] in ("number", "integer")]
    if status != 200 or any(column["source"] != "catalogue" for column in bounded):
        return (
            f"the feature catalogue is not applied: {status} {body[:200].decode(errors='replace')}"
        )
    return ""


def rows_doubt(place: Place, *, answers: int, open_at_end: int) -> str:
    """What is wrong with the log after the server's end, or nothing.

    Args:
        place: with the database.
        answers: right ones that the client saw, each of which must have a row.
        open_at_end: requests that were on the way when the client left, which may have one.
    """
    rows = int(_run(place, _COUNT))
    if answers <= rows <= answers + open_at_end:
        return ""
    return f"the log holds {rows:,} rows, expected {answers:,} (and at most {open_at_end} more)"


def _migrate(place: Place, found: Database) -> None:
    """PostgreSQL takes connections a moment before it answers: tried until it does."""
    deadline = time.monotonic() + _START_S
    command = [sys.executable, "-m", "halfcore", "migrate"]
    environment = clean_environment() | {"DATABASE_URL": found.url}
    while (
        done := subprocess.run(command, env=environment, capture_output=True, check=False)  # noqa: S603
    ).returncode:
        if time.monotonic() > deadline:
            raise CannotStart(
                f"the log's database in {place.scratch}: "
                f"{done.stderr.decode(errors='replace').strip()[-300:]}"
            )
        time.sleep(0.1)


def _run(place: Place, sql: str) -> str:
    if place.recorder is None:
        raise CannotStart("no database was started for the prediction log")
    words = [
        str(baseline_python(place.root)),
        "-m",
        "rival.database",
        "ask",
        "--port",
        str(place.recorder.port),
        sql,
    ]
    done = subprocess.run(  # noqa: S603  our own words
        words,
        cwd=place.root / BASELINE,
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise CannotStart(f"the log's database: {done.stderr.strip()[-300:]}")
    return done.stdout.strip()


def _quoted(text: str) -> str:
    return (
        "'" + text.replace("'", "''").replace(":", r"\:") + "'"
    )  # a colon would begin a parameter
