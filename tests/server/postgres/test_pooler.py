"""PostgreSQL behind a real PgBouncer: all works through one that pools transactions, if the setting
says so; if not, the log does."""

import asyncio
import logging
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import httpx
import pytest

import halfcore.postgres.database
from halfcore.postgres.database import Database, DatabaseError, Pooler
from halfcore.postgres.migrate import migrate, read
from support.bundles import write_bundle
from support.client import parsed, wait_until
from support.log import listen
from support.logged import Client, rows
from support.pgbouncer import PgBouncer, pgbouncer
from support.postgres import Postgres
from support.serving import serving

SETTING = "set HALFCORE_DATABASE_POOLER=transaction"


@pytest.fixture
def pooler(postgres: Postgres) -> Iterator[PgBouncer]:
    """PgBouncer with two sessions of PostgreSQL, which all clients share, one transaction at a
    time."""
    with pgbouncer(postgres) as running:
        yield running


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """The server's log."""
    return listen(caplog)


@pytest.fixture(autouse=True)
def _not_warned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test is the first to meet a pooler."""
    monkeypatch.setattr(halfcore.postgres.database, "_warned", set())


async def alternate(database: Database, url: str) -> int:
    """Ask one thing twice on a connection, in two sessions of PostgreSQL, for another client has
    taken the first one meanwhile."""
    async with database.connection() as connection:
        await connection.fetchval("SELECT 1::int4")
        other = await asyncpg.connect(url, statement_cache_size=0)
        try:
            await other.execute("BEGIN")
            return int(await connection.fetchval("SELECT 1::int4"))
        finally:
            other.terminate()


async def test_without_the_setting_the_log_says_which_one_to_use(
    postgres: Postgres, pooler: PgBouncer, log: pytest.LogCaptureFixture
) -> None:
    """At the first connection, once, and with the failure: a statement that was prepared in another
    session."""
    url = pooler.dsn(postgres.create_database())
    database = Database(url)
    with pytest.raises(
        DatabaseError,
        match=f"prepared statement .* does not exist: a pooler of transactions .*, {SETTING}",
    ):
        await alternate(database, url)
    async with database.connection():
        pass
    await database.close()
    (warning,) = [
        record.getMessage() for record in log.records if record.levelno == logging.WARNING
    ]
    assert "is behind a connection pooler: if it pools transactions" in warning
    assert SETTING in warning


async def test_with_the_setting_sessions_may_change(
    postgres: Postgres, pooler: PgBouncer, log: pytest.LogCaptureFixture
) -> None:
    """The same, without a word."""
    url = pooler.dsn(postgres.create_database())
    database = Database(url, pooler="transaction")
    assert await alternate(database, url) == 1
    await database.close()
    assert log.records == []


@pytest.mark.parametrize(("setting", "warnings"), [("none", 1), ("session", 0)])
async def test_a_pooler_of_sessions_works_and_can_be_named(
    postgres: Postgres, setting: Pooler, warnings: int, log: pytest.LogCaptureFixture
) -> None:
    """Notifications come through it; the warning ends when the setting names it."""
    heard = asyncio.Event()

    def hear(*_: object) -> None:
        heard.set()

    with pgbouncer(postgres, pool_mode="session") as sessions:
        database = Database(sessions.dsn(postgres.create_database()), pooler=setting)
        async with database.connection() as connection:
            await connection.add_listener("channel", hear)
            await connection.execute("NOTIFY channel")
            async with asyncio.timeout(20):
                await heard.wait()
            await connection.remove_listener("channel", hear)
        await database.close()
    assert len(log.records) == warnings


async def test_a_database_without_a_pooler_is_not_taken_for_one(
    postgres: Postgres, log: pytest.LogCaptureFixture
) -> None:
    """No warning."""
    database = Database(postgres.dsn())
    async with database.connection():
        pass
    await database.close()
    assert log.records == []


async def test_migrations_run_through_a_pooler_and_leave_no_lock(
    postgres: Postgres, pooler: PgBouncer
) -> None:
    """Three runs at once, of which the sessions are two: every file is applied once, and the next
    run does not wait for a lock that stayed behind in somebody's session."""
    name = postgres.create_database()
    databases = [Database(pooler.dsn(name), pooler="transaction", timeout_s=30.0) for _ in range(3)]
    counts = await asyncio.gather(*(migrate(database, read(), say=str) for database in databases))
    assert sum(counts) == len(read())
    assert await migrate(databases[0], read(), say=str) == 0
    assert postgres.sql("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == [("0",)]
    for database in databases:
        await database.close()


def test_a_server_works_through_a_pooler_of_transactions(
    tmp_path: Path, postgres: Postgres, pooler: PgBouncer, database: str
) -> None:
    """Two workers, each with a catalogue and a log, on two sessions: changes of the catalogue come
    by the period, every prediction is in the log, none took the way over the disk, and nothing is
    warned of."""
    write_bundle(tmp_path / "bundles", "numbers")
    folders = {name: tmp_path / name for name in ("state", "prediction_log_spool")}
    settings = {
        "database_url": pooler.dsn(database),
        "database_pooler": "transaction",
        "catalog_refresh_s": 0.3,
    }
    with serving(
        tmp_path / "bundles", workers=2, prediction_log="true", **settings, **folders
    ) as server:
        url = f"http://127.0.0.1:{server.port}"
        with Client(server, "first") as first, Client(server, "second") as second:
            for maximum in range(5, 10):
                columns = (
                    "INSERT INTO halfcore.feature_catalogue (model, column_name, maximum) VALUES "
                    "('numbers', 'x0', "
                )
                postgres.sql(
                    f"{columns}{maximum}) ON CONFLICT (model, column_name) DO UPDATE SET maximum "
                    "= EXCLUDED.maximum",
                    database,
                )
                bound = {"maximum": float(maximum), "minimum": None}
                wait_until(
                    lambda bound=bound: (
                        httpx.get(f"{url}/models/numbers").json()["inputs"][0].get("allowed")
                        == bound
                    )
                )
            wait_until(lambda: len(first.answered) > 50 and len(second.answered) > 50)
        assert first.failed == second.failed == []
        metrics = parsed(httpx.get(f"{url}/metrics").text)
        assert metrics["halfcore_catalog_connected",] == 1
        assert metrics["halfcore_prediction_log_spooled_rows_total",] == 0
        assert server.stop() == 0
        assert server.process.stderr is not None
        log = server.process.stderr.read()
    logged = {row["request_id"] for row in rows(postgres, database, "request_id")}
    assert logged == {*first.answered, *second.answered}
    assert "without notifications: HALFCORE_DATABASE_POOLER=transaction" in log
    assert " WARNING " not in log
    assert " ERROR " not in log
