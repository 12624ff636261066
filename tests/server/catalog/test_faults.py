"""A real server under load while PostgreSQL stops, hangs, restarts, cuts connections and storms: no
prediction fails, and it recovers."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from halfcore.catalog.follower import LEAST_GAP_S
from support.bodies import dumped, without
from support.bundles import MIXED, write_bundle
from support.client import parsed
from support.postgres import PASSWORD, Postgres
from support.serving import Server, request, serving

BODY = dumped(without("mass"))
"""Answered only with the catalogue's default."""


class Rig(NamedTuple):
    """A server, its PostgreSQL, and the database there."""

    server: Server
    postgres: Postgres
    database: str


@pytest.fixture(scope="module")
def rig(
    tmp_path_factory: pytest.TempPathFactory, postgres_server: Postgres, schema: str
) -> Iterator[Rig]:
    """One server for all faults, as in life: serves `mixed` with a catalogue, and looks for trouble
    often."""
    root = tmp_path_factory.mktemp("rig")
    write_bundle(root / "bundles", "mixed", inputs=MIXED)
    postgres_server.start()
    database = postgres_server.create_database(template=schema)
    set_default(postgres_server, database, 0)
    url = postgres_server.dsn(database)
    with serving(
        root / "bundles",
        state=root / "state",
        catalog_refresh_s=0.3,
        database_timeout_s=0.5,
        database_url=url,
    ) as server:
        yield Rig(server, postgres_server, database)
        postgres_server.start()
        assert server.stop() == 0
        assert server.process.stderr is not None
        log = server.process.stderr.read()
        assert "trying again: PostgreSQL ended the connection" in log
        assert PASSWORD not in log


def set_default(postgres: Postgres, database: str, value: int) -> None:
    """Commit another default for the column `mass`."""
    postgres.sql(
        "INSERT INTO halfcore.feature_catalogue (model, column_name, default_value) VALUES "  # noqa: S608
        f"('mixed', 'mass', '{value}') "
        "ON CONFLICT (model, column_name) DO UPDATE SET default_value = EXCLUDED.default_value",
        database,
    )


def default(server: Server) -> Any:
    """The default that is applied now."""
    answer = server.send(request("/models/mixed", method="GET")).partition(b"\r\n\r\n")[2]
    return json.loads(answer)["inputs"][1].get("default")


def metric(server: Server, *name: str) -> float:
    """A sample of /metrics now; 0 if there is none."""
    return parsed(
        server.send(request("/metrics", method="GET")).partition(b"\r\n\r\n")[2].decode()
    ).get(name, 0.0)


def until(ask: Callable[[], Any], wanted: Any) -> None:
    """Ask until the answer is the wanted one."""
    deadline = time.monotonic() + 90
    while (found := ask()) != wanted:
        assert time.monotonic() < deadline, f"{found}, expected {wanted}"
        time.sleep(0.01)


@contextmanager
def predicting(server: Server) -> Iterator[list[bytes]]:
    """Predictions on three connections, one after the other on each, for the length of the block;
    yields the status lines that came."""
    answers: list[bytes] = []
    over = threading.Event()

    def predict() -> None:
        while not over.is_set():
            answers.append(server.send(request("/predict", BODY))[:15])

    threads = [threading.Thread(target=predict) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        yield answers
    finally:
        over.set()
        for thread in threads:
            thread.join(30)


def stop(rig: Rig) -> None:
    """Down until the server has noticed."""
    with rig.postgres.stopped():
        until(lambda: metric(rig.server, "halfcore_catalog_connected"), 0.0)


def hang(rig: Rig) -> None:
    """Hanging until the server has noticed, which only a read that is bounded in time can."""
    with rig.postgres.hung():
        until(lambda: metric(rig.server, "halfcore_catalog_connected"), 0.0)


def restart(rig: Rig) -> None:
    """Down and up at once."""
    rig.postgres.restart()


def terminate(rig: Rig) -> None:
    """An administrator ends the listener's session."""
    assert (
        rig.postgres.terminate(f"application_name = 'halfcore' AND datname = '{rig.database}'") == 1
    )


def reads(rig: Rig) -> float:
    """How often the table was read."""
    return sum(
        metric(rig.server, "halfcore_catalog_refreshes_total", result)
        for result in ("changed", "unchanged")
    )


def fail_over(rig: Rig) -> None:
    """A standby, which refuses to LISTEN, is read all the same, and is promoted."""
    with rig.postgres.standby():
        before = reads(rig)
        until(lambda: reads(rig) > before + 1, True)


def storm(rig: Rig) -> None:
    """100,000 notifications in a hundred commits bring a few reads, not one each."""
    before, start = reads(rig), time.monotonic()
    notify = "PERFORM pg_notify('halfcore_feature_catalogue', i::text)"
    rig.postgres.sql(
        f"DO $$ BEGIN FOR i IN 1..1000 LOOP {notify}; END LOOP; END $$;" * 100, rig.database
    )
    until(lambda: reads(rig) > before, True)
    assert reads(rig) - before <= 2 + (time.monotonic() - start) / LEAST_GAP_S


@pytest.mark.parametrize(
    "fault",
    [stop, hang, restart, fail_over, terminate, storm],
    ids=lambda fault: fault.__name__,
)
def test_no_prediction_fails_and_changes_come_again(rig: Rig, fault: Callable[[Rig], None]) -> None:
    """Every prediction is 200 throughout, and a change committed afterwards is applied."""
    before = default(rig.server)
    assert before is not None
    with predicting(rig.server) as answers:
        fault(rig)
        during = len(answers)
        set_default(rig.postgres, rig.database, before + 1)
        until(lambda: default(rig.server), before + 1)
        until(lambda: len(answers) > during, True)

    assert during > 0
    assert set(answers) == {b"HTTP/1.1 200 OK"}
    assert metric(rig.server, "halfcore_catalog_connected") == 1.0


def test_a_server_starts_while_postgresql_hangs(
    tmp_path: Path, postgres: Postgres, database: str
) -> None:
    """Ready with the bundle's own metadata; when it answers again, with the catalogue."""
    write_bundle(tmp_path / "bundles", "mixed", inputs=MIXED)
    set_default(postgres, database, 1)
    settings = {
        "state": tmp_path / "state",
        "database_url": postgres.dsn(database),
        "database_timeout_s": 0.5,
    }
    with ExitStack() as stack:
        stack.enter_context(postgres.hung())
        server = stack.enter_context(serving(tmp_path / "bundles", **settings))
        assert default(server) is None
        postgres.resume()
        until(lambda: default(server), 1)
