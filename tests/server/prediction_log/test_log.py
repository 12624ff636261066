"""The log against a real PostgreSQL: every row is there once, in order, whatever the database or
the process does."""

import asyncio
import errno
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import pytest

from halfcore.metrics.counters import PredictionLogMetrics
from halfcore.postgres.database import Database, DatabaseError
from halfcore.postgres.migrate import migrate, read
from halfcore.prediction_log import log as module
from halfcore.prediction_log import spool as spool_module
from halfcore.prediction_log.blocks import Block, encode
from halfcore.prediction_log.log import PredictionLog
from halfcore.prediction_log.spool import Directory, Spool
from halfcore.prediction_log.store import Store, Written
from support.log import listen
from support.postgres import Postgres
from support.predictions import IRIS, WRITER, Model, block, entry

W = UUID(bytes=WRITER)
IN_ORDER = "SELECT row_number, request_id FROM halfcore.prediction_log ORDER BY 1"


class Rows(NamedTuple):
    """One row of a request."""

    size: int = 1


class Answered(NamedTuple):
    """What the log reads of an answered request."""

    request_id: str
    model: Model = IRIS
    body: bytes = b'{"features":[1]}'
    rows: Rows = Rows()
    answer: bytes = b'{"prediction":"a"}'
    latency_s: float = 0.001
    trace_id: str | None = None


@pytest.fixture(scope="module")
def template(postgres_server: Postgres) -> str:
    """A migrated database to copy."""
    name = postgres_server.create_database()

    async def run() -> None:
        database = Database(postgres_server.dsn(name))
        await migrate(database, read(), say=lambda _: None)
        await database.close()

    asyncio.run(run())
    return name


@pytest.fixture
def name(postgres: Postgres, template: str) -> str:
    """A migrated database of the test's own."""
    return postgres.create_database(template)


@pytest.fixture
async def database(postgres: Postgres, name: str) -> AsyncIterator[Database]:
    """The server's way to it."""
    database = Database(postgres.dsn(name), timeout_s=2.0)
    yield database
    await database.close()


@asynccontextmanager
async def logging(
    dsn: str,
    spool: Path,
    *,
    memory_bytes: int = 1 << 24,
    spool_bytes: int = 1 << 24,
    share: float = 1.0,
) -> AsyncIterator[tuple[PredictionLog, PredictionLogMetrics]]:
    """A log that is closed at the block's end."""
    metrics = PredictionLogMetrics()
    log = PredictionLog(
        lambda: Database(dsn, max_connections=1, timeout_s=1.0),
        spool=spool,
        spool_bytes=spool_bytes,
        memory_bytes=memory_bytes,
        share=share,
        inputs=True,
        metrics=metrics,
    )
    log.start()
    try:
        yield log, metrics
    finally:
        await log.close()


def add(log: PredictionLog, numbers: range) -> None:
    """Log requests whose ids are numbers."""
    for number in numbers:
        log.add(Answered(str(number)))


def files(directory: Path) -> dict[str, int]:
    """What lies in a spool, directories and files, and their sizes."""
    return {path.name: path.stat().st_size for path in directory.rglob("*") if path.exists()}


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a state."""
    async with asyncio.timeout(90):
        while not condition():  # noqa: ASYNC110  the state is another's, and tells nobody
            await asyncio.sleep(0.01)


def ids(postgres: Postgres, name: str) -> list[int]:
    """The logged requests in the order of their numbers."""
    return [int(row[1]) for row in postgres.sql(IN_ORDER, name)]


# -- the store -------------------------------------------------------------------------------------


async def test_a_block_is_written_once_however_often_it_is_offered(
    postgres: Postgres, name: str, database: Database
) -> None:
    """The mark moves with the rows."""
    store = Store(database)
    assert await store.write(W, [block(0), block(3)]) == Written(6, 0)
    assert await store.write(W, [block(0), block(3)]) == Written(0, 0)
    assert await store.write(W, [block(3), block(6)]) == Written(3, 0)
    assert await store.write(UUID(int=9), [block(0)]) == Written(3, 0)

    assert postgres.sql("SELECT count(*), max(row_number) FROM halfcore.prediction_log", name) == [
        ("12", "8")
    ]
    assert postgres.sql(
        "SELECT DISTINCT inputs->'features'->>0 FROM halfcore.prediction_log WHERE row_number = 7",
        name,
    ) == [("7",)]


async def test_a_write_that_breaks_off_writes_nothing_or_all(
    postgres: Postgres, name: str, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever the connection is cut, the commit's acknowledgement included, the next attempt
    completes what is missing and no more."""
    import asyncpg

    store = Store(database)
    execute = asyncpg.Connection.execute
    for number, cut in enumerate(["BEGIN", "UPDATE", "COMMIT", "after COMMIT"]):
        with monkeypatch.context() as patch:

            async def broken(
                self: asyncpg.Connection,
                query: str,
                *arguments: object,
                cut: str = cut,
                **options: object,
            ) -> object:
                if query.startswith(cut):
                    self.terminate()
                result = await execute(self, query, *arguments, **options)
                if cut == "after " + query:
                    self.terminate()
                    raise ConnectionResetError("the acknowledgement was lost")
                return result

            patch.setattr(asyncpg.Connection, "execute", broken)
            with pytest.raises(DatabaseError):
                await store.write(W, [block(3 * number)])
        assert await store.write(W, [block(3 * number)]) == (
            Written(0, 0) if "after" in cut else Written(3, 0)
        )

    assert [
        row[0]
        for row in postgres.sql("SELECT row_number FROM halfcore.prediction_log ORDER BY 1", name)
    ] == list(map(str, range(12)))


async def test_two_that_replay_one_writer_write_its_rows_once(
    postgres: Postgres, name: str, database: Database
) -> None:
    """The second waits for the first's outcome."""
    written = await asyncio.gather(
        *(Store(database).write(W, [block(0), block(3)]) for _ in range(4))
    )
    assert sorted(result.rows for result in written) == [0, 0, 0, 6]


async def test_a_row_that_postgresql_refuses_costs_only_itself(
    postgres: Postgres, name: str, database: Database
) -> None:
    """It is found by halving, counted and passed over."""
    bad = {4, 5, 11}
    entries = [entry(n)._replace(answer=b"not JSON") if n in bad else entry(n) for n in range(17)]

    written = await Store(database).write(
        W, [encode(entries, writer=WRITER, first=0, inputs=True), block(17)]
    )

    assert (written.rows, written.refused) == (17, 3)
    rows = postgres.sql("SELECT row_number FROM halfcore.prediction_log ORDER BY 1", name)
    assert [int(row[0]) for row in rows] == [n for n in range(20) if n not in bad]


async def test_rows_with_and_without_a_trace_are_written_in_order(
    postgres: Postgres, name: str, database: Database
) -> None:
    """Blocks of both kinds in one transaction."""
    traced = encode([entry(3, trace_id="a" * 32), entry(4)], writer=WRITER, first=3, inputs=True)

    assert await Store(database).write(W, [block(0), traced, block(5)]) == Written(8, 0)

    query = "SELECT coalesce(trace_id, '') FROM halfcore.prediction_log ORDER BY row_number"
    assert [row[0] for row in postgres.sql(query, name)] == [""] * 3 + ["a" * 32] + [""] * 4


async def test_a_schema_of_the_version_before_takes_rows_without_a_trace(
    postgres: Postgres,
) -> None:
    """An upgraded server logs before `halfcore migrate` is run; only traces wait for it."""
    database = Database(postgres.dsn(postgres.create_database()))
    await migrate(database, read()[:2], say=str)
    traced = encode([entry(3, trace_id="a" * 32)], writer=WRITER, first=3, inputs=True)

    assert await Store(database).write(W, [block(0)]) == Written(3, 0)
    with pytest.raises(DatabaseError, match="trace_id"):
        await Store(database).write(W, [traced])
    await migrate(database, read(), say=str)
    assert await Store(database).write(W, [traced]) == Written(1, 0)
    await database.close()


async def test_every_day_has_its_partition(
    postgres: Postgres, name: str, database: Database
) -> None:
    """Made ahead, at once by several if need be; one that was dropped meanwhile is made again."""
    day = 86_400
    midnight = encode(
        [(1_700_006_400.0 + offset, *entry()[1:]) for offset in (-0.001, 0.0)],
        writer=WRITER,
        first=0,
        inputs=True,
    )
    store = Store(database)
    await asyncio.gather(
        store.write(W, [midnight]),
        *(Store(database).write(UUID(int=n), [midnight]) for n in range(3)),
    )

    partitions = postgres.sql(
        "SELECT tablename FROM pg_tables WHERE tablename ~ '^prediction_log_[0-9]' ORDER BY 1", name
    )
    assert [row[0] for row in partitions] == [
        f"prediction_log_202311{day}" for day in (14, 15, 16, 17)
    ]
    assert postgres.sql("SELECT count(*) FROM halfcore.prediction_log_20231114", name) == [("4",)]

    assert postgres.sql("SELECT halfcore.prediction_log_drop_before('2023-11-15')", name) == [
        ("1",)
    ]
    assert postgres.sql("SELECT count(*) FROM halfcore.prediction_log", name) == [("4",)]
    again = encode([(1_700_006_400.0 - day / 2, *entry()[1:])], writer=WRITER, first=2, inputs=True)
    assert await store.write(W, [again]) == Written(1, 0)


async def test_a_day_has_what_was_added_to_the_table(
    postgres: Postgres, name: str, database: Database
) -> None:
    """A constraint and columns of the operator's own keep no partition from being made."""
    postgres.sql(
        "ALTER TABLE halfcore.prediction_log ADD CHECK (row_count > 0), "
        "ADD site text NOT NULL DEFAULT 'a', "
        "ADD label text GENERATED ALWAYS AS (answer->>'prediction') STORED; "
        "CREATE INDEX ON halfcore.prediction_log (label)",
        name,
    )
    assert await Store(database).write(W, [block(0)]) == Written(3, 0)


async def test_rows_of_a_detached_day_wait_until_its_table_is_renamed(
    postgres: Postgres, name: str, database: Database
) -> None:
    """As for an archive: they are not refused, and the reason says what to do."""
    store = Store(database)
    assert await store.write(W, [block(0)]) == Written(3, 0)
    ((day,),) = postgres.sql(
        "SELECT DISTINCT tableoid::regclass FROM halfcore.prediction_log", name
    )
    postgres.sql(f"ALTER TABLE halfcore.prediction_log DETACH PARTITION {day}", name)
    for each in (store, Store(database)):
        with pytest.raises(DatabaseError, match="of that day is detached, attach it or rename it"):
            await each.write(W, [block(3)])

    postgres.sql(f"ALTER TABLE {day} RENAME TO archive", name)
    assert await store.write(W, [block(3)]) == Written(3, 0)


def test_every_day_is_counted_in_utc_whatever_the_sessions_time_zone(
    postgres: Postgres, name: str
) -> None:
    """In Santiago, the 5th of September 2027 has no midnight."""
    made = postgres.sql(
        "SET timezone = 'America/Santiago'; "
        "SELECT halfcore.prediction_log_ensure_days('2027-09-05', '2027-09-07'); "
        "SET timezone = 'UTC'; SELECT relname, pg_get_expr(relpartbound, oid) FROM pg_class "
        "WHERE relname ~ '^prediction_log_2027[0-9]{4}$' ORDER BY 1",
        name,
    )
    bounds = "FOR VALUES FROM ('2027-09-0{} 00:00:00+00') TO ('2027-09-0{} 00:00:00+00')"
    assert made[1:] == [
        (f"prediction_log_2027090{day}", bounds.format(day, day + 1)) for day in (5, 6, 7)
    ]


async def test_old_marks_go_with_the_old_days(
    postgres: Postgres, name: str, database: Database
) -> None:
    """And not a day earlier: a mark outlives every row it guards."""
    await Store(database).write(W, [block(0)])
    postgres.sql(
        "UPDATE halfcore.prediction_log_offsets SET updated_at = '2023-11-14 12:00+00'", name
    )
    postgres.sql("SELECT halfcore.prediction_log_drop_before('2023-11-15')", name)
    assert postgres.sql("SELECT count(*) FROM halfcore.prediction_log_offsets", name) == [("1",)]
    postgres.sql("SELECT halfcore.prediction_log_drop_before('2023-11-17')", name)
    assert postgres.sql("SELECT count(*) FROM halfcore.prediction_log_offsets", name) == [("0",)]


async def test_a_server_may_log_without_owning_the_tables(
    postgres: Postgres, name: str, database: Database
) -> None:
    """With the rights that docs/prediction-log.md grants, which are enough for the catalogue too,
    and none to drop."""
    page = (Path(__file__).parents[3] / "docs/prediction-log.md").read_text()
    grants = page.partition("```sql\nGRANT")[2].partition("```")[0]
    role = "halfcore_server"
    postgres.sql(
        f"DROP ROLE IF EXISTS {role}; CREATE ROLE {role} LOGIN PASSWORD 'x'; GRANT{grants}", name
    )
    other = Database(postgres.dsn(name, user=role, password="x"))
    try:
        store = Store(other)
        await store.ping()
        assert await store.write(W, [block(0)]) == Written(3, 0)
        async with other.connection() as connection:  # as a server with a database always does
            await connection.execute("SELECT FROM halfcore.feature_catalogue")
        with pytest.raises(DatabaseError, match="permission denied"):
            async with other.connection() as connection:
                await connection.execute("SELECT halfcore.prediction_log_drop_before('2030-01-01')")
    finally:
        await other.close()
        postgres.sql(f"DROP OWNED BY {role}; DROP ROLE {role}", name)


def test_a_reader_makes_no_partitions(postgres: Postgres, name: str) -> None:
    """The function makes tables in the owner's name, so it is not everybody's."""
    allowed = postgres.sql(
        "SELECT oid::regprocedure FROM pg_proc WHERE pronamespace = 'halfcore'::regnamespace "
        "AND prosecdef AND has_function_privilege('pg_read_all_data', oid, 'EXECUTE')",
        name,
    )
    assert allowed == []


# -- the log ---------------------------------------------------------------------------------------


async def test_what_is_added_is_in_the_table_soon_and_touches_no_disk(
    postgres: Postgres, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In order, and nothing is held afterwards."""
    monkeypatch.setattr(module, "PATIENCE_S", 60.0)  # a busy machine may need a while
    async with logging(postgres.dsn(name), tmp_path / "spool") as (log, metrics):
        add(log, range(2000))
        await until(lambda: metrics.written == 2000)
        assert metrics.queued() == (0, 0)
        add(log, range(2000, 2010))
    assert ids(postgres, name) == list(range(2010))
    assert not (tmp_path / "spool").exists()
    assert (metrics.spooled, metrics.dropped) == (0, {})


async def test_a_database_that_comes_and_goes_loses_and_doubles_nothing(
    postgres: Postgres, name: str, tmp_path: Path
) -> None:
    """Down, up, hung, up, restarted, its sessions ended: rows are added all the while, and the
    table has each once and in order."""
    total = 0

    async def adding(log: PredictionLog) -> None:
        nonlocal total
        while True:
            add(log, range(total, total + 20))
            total += 20
            await asyncio.sleep(0.01)

    async with logging(postgres.dsn(name), tmp_path) as (log, metrics):
        task = asyncio.create_task(adding(log))
        await until(lambda: metrics.written > 0)
        for outage in (postgres.stopped, postgres.hung):
            with outage():
                spooled = metrics.spooled
                # Awaited within the turn
                await until(lambda: metrics.spooled > spooled + 100)  # noqa: B023
            await until(lambda: metrics.spool()[0] == 0 and metrics.written > total - 300)
        await asyncio.to_thread(postgres.restart)
        postgres.terminate(f"datname = '{name}'")
        task.cancel()
        await until(lambda: metrics.written == total)
    assert ids(postgres, name) == list(range(total))
    assert metrics.dropped == {}
    assert files(tmp_path) == {}


async def test_a_write_that_is_not_answered_is_logged_with_its_reason(
    postgres: Postgres, name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """PostgreSQL that hangs raises nothing but a timeout, whose text is empty."""
    listen(caplog)
    async with logging(postgres.dsn(name), tmp_path) as (log, metrics):
        with postgres.hung():
            add(log, range(10))
            await until(lambda: metrics.spooled == 10)
    (line,) = [text for text in caplog.messages if "cannot write predictions to PostgreSQL" in text]
    assert line.endswith(
        f"writing them to the disk until it works again: no answer within {module.PATIENCE_S} s"
    )


async def test_a_database_that_answers_but_takes_nothing_does_not_fill_the_log(
    postgres: Postgres,
    name: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Read-only, and no disk to write to: the rows are offered again and again, and the log says
    it once."""
    listen(caplog)
    monkeypatch.setattr(module, "PERIOD_S", 0.01)
    postgres.sql(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    (tmp_path / "file").touch()
    async with logging(postgres.dsn(name), tmp_path / "file/spool") as (log, metrics):
        offered = counted(monkeypatch, log)
        add(log, range(10))
        await until(lambda: len(offered) >= 5)
        reported = [
            text for text in caplog.messages if "cannot write predictions to PostgreSQL" in text
        ]
        assert metrics.dropped == {}
    (line,) = reported
    assert "ReadOnlySQLTransactionError" in line


@pytest.mark.parametrize("process", ["the same", "a successor"])
async def test_why_the_disk_is_not_emptied_is_in_the_log(
    postgres: Postgres,
    name: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    process: str,
) -> None:
    """Once, where the database is back and refuses what an outage sent to the disk: no other write
    says so."""
    listen(caplog)
    postgres.sql(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    if process == "a successor":
        spool = Spool(tmp_path, writer=W, most_bytes=1 << 20)
        spool.append([block(0)])
        spool.close()

    def refused() -> list[str]:
        return [text for text in caplog.messages if "ReadOnlySQLTransactionError" in text]

    async with logging(postgres.dsn(name), tmp_path) as (log, metrics):
        if process == "the same":
            with postgres.stopped():
                add(log, range(5))
                await until(lambda: metrics.spooled == 5)
        await until(lambda: bool(refused()))
        await asyncio.sleep(1)  # it is tried again meanwhile
    (line,) = refused()
    assert line.startswith("cannot write the predictions on the disk to PostgreSQL; trying again: ")
    assert line.endswith("it is a standby or read-only, let the URL name the primary")


async def test_rows_that_postgresql_refuses_do_not_fill_the_log(
    postgres: Postgres, name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A constraint that refuses all of them is one line a minute, with their number, and quotes
    none of their values."""
    listen(caplog)
    constraint = "ADD CONSTRAINT mine CHECK (row_count > 1)"
    postgres.sql(f"ALTER TABLE halfcore.prediction_log {constraint}", name)
    async with logging(postgres.dsn(name), tmp_path) as (log, metrics):
        add(log, range(10))
        await until(lambda: metrics.dropped == {"refused_by_database": 10})
        add(log, range(10, 15))
        await until(lambda: metrics.dropped == {"refused_by_database": 15})
    (line,) = [text for text in caplog.messages if "PostgreSQL refused" in text]
    assert line.startswith(
        "PostgreSQL refused 10 predictions, which are not logged: "
        "CheckViolationError (SQLSTATE 23514, constraint mine); if a constraint"
    )


async def test_a_row_that_a_trigger_refuses_holds_up_no_other(
    postgres: Postgres, name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """`RAISE EXCEPTION` in a trigger of the operator's own has the same effect as a constraint."""
    listen(caplog)
    postgres.sql(
        "CREATE FUNCTION mine() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN "
        "IF NEW.request_id LIKE '%3' THEN RAISE EXCEPTION 'not %', NEW.request_id; END IF; "
        "RETURN NEW; END$$; CREATE TRIGGER mine BEFORE INSERT ON halfcore.prediction_log "
        "FOR EACH ROW EXECUTE FUNCTION mine()",
        name,
    )
    async with logging(postgres.dsn(name), tmp_path) as (log, metrics):
        add(log, range(10))
        await until(lambda: metrics.dropped == {"refused_by_database": 1})
        await until(lambda: metrics.written == 9)
    (line,) = [text for text in caplog.messages if "PostgreSQL refused" in text]
    assert "RaiseError (SQLSTATE P0001)" in line
    assert "not 3" not in line


def counted(monkeypatch: pytest.MonkeyPatch, log: PredictionLog) -> list[bool]:
    """What each write of a log's rows to the database returns from now on."""
    offered: list[bool] = []
    write = log._write

    async def counting(blocks: list[Block], *, patience_s: float) -> bool:
        offered.append(await write(blocks, patience_s=patience_s))
        return offered[-1]

    monkeypatch.setattr(log, "_write", counting)
    return offered


async def test_rows_whose_write_was_not_acknowledged_are_counted_once(
    postgres: Postgres, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They go through the disk, where they turn out to be there; once more if their file cannot be
    deleted."""
    write, remove, failures = Store.write, Directory.remove, ["write", "remove"]

    async def write_unheard(store: Store, *arguments: Any) -> Written:
        written = await write(store, *arguments)
        if "write" in failures:
            failures.remove("write")
            raise DatabaseError("no answer")
        return written

    def remove_late(directory: Directory, *arguments: Any) -> None:
        if "remove" in failures:
            failures.remove("remove")
            raise OSError("busy")
        remove(directory, *arguments)

    monkeypatch.setattr(Store, "write", write_unheard)
    monkeypatch.setattr(Directory, "remove", remove_late)
    async with logging(postgres.dsn(name), tmp_path) as (log, metrics):
        add(log, range(5))
        await until(lambda: metrics.spooled == 5 and metrics.spool() == (0, 0))
        assert metrics.written == 5
        add(log, range(5, 7))
        await until(lambda: metrics.written == 7)
    assert (ids(postgres, name), failures) == (list(range(7)), [])


@pytest.mark.parametrize("more", [0, 5], ids=["then the database is back", "then more rows"])
async def test_a_spool_that_is_removed_costs_what_was_in_it(
    postgres: Postgres, name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, more: int
) -> None:
    """By a cleaner of temporary files, for example: later rows are logged, whether they had to go
    to the disk or not."""
    listen(caplog)
    spool = tmp_path / "spool"
    async with logging(postgres.dsn(name), spool) as (log, metrics):
        writing = in_progress(log)
        with postgres.stopped():
            add(log, range(10))
            await until(lambda: metrics.spooled == 10)
            shutil.rmtree(spool)
            add(log, range(10, 10 + more))
            await until(lambda: metrics.spooled == 10 + more)
            # What was read before is held in memory until its write has failed
            await until(lambda: bool(metrics.dropped) and not writing)
        await until(lambda: metrics.spool()[0] == 0)
        add(log, range(20, 25))
        await until(lambda: metrics.written == more + 5)
    assert ids(postgres, name) == [*range(10, 10 + more), *range(20, 25)]
    assert metrics.dropped == {"disk_error": 10}
    assert "lost 10 predictions: the files of the spool were removed" in caplog.text


async def test_a_segment_that_is_removed_while_its_rows_are_written_is_no_loss(
    postgres: Postgres,
    name: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They were read before, and are in the table."""
    listen(caplog)
    write = Store.write

    async def removing(store: Store, writer: UUID, blocks: list[Block]) -> Written:
        written = await write(store, writer, blocks)
        shutil.rmtree(tmp_path / "spool", ignore_errors=True)
        return written

    monkeypatch.setattr(Store, "write", removing)
    async with logging(postgres.dsn(name), tmp_path / "spool") as (log, metrics):
        with postgres.stopped():
            add(log, range(10))
            await until(lambda: metrics.spooled == 10)
        await until(lambda: metrics.spool() == (0, 0))
        add(log, range(10, 15))
        await until(lambda: metrics.written == 15)
    assert ids(postgres, name) == list(range(15))
    assert (metrics.dropped, metrics.torn) == ({}, 0)
    assert "lost" not in caplog.text


def in_progress(log: PredictionLog) -> list[object]:
    """The blocks that a log is writing to the database, from now on."""
    writing: list[object] = []
    write = log._store.write

    async def noted(writer: UUID, blocks: list[Block]) -> Written:
        writing.append(blocks)
        try:
            return await write(writer, blocks)
        finally:
            writing.pop()

    log._store.write = noted  # type: ignore[method-assign, assignment]
    return writing


async def test_an_end_without_a_database_leaves_the_rows_to_a_successor(
    postgres: Postgres, name: str, tmp_path: Path
) -> None:
    """On the disk when `close` returns; the next log writes them under the first one's name, before
    anything else is spooled."""
    with postgres.stopped():
        async with logging(postgres.dsn(name), tmp_path) as (log, metrics):
            add(log, range(500))
        assert (metrics.spooled, metrics.dropped) == (500, {})
    async with logging(postgres.dsn(name), tmp_path) as (_, metrics):
        await until(lambda: metrics.written == 500)
    assert ids(postgres, name) == list(range(500))
    assert files(tmp_path) == {}


async def test_a_crash_between_commit_and_deletion_doubles_nothing(
    postgres: Postgres, name: str, tmp_path: Path, database: Database
) -> None:
    """The segment is offered again, and its rows stand below the mark."""
    spool = Spool(tmp_path, writer=W, most_bytes=1 << 20)
    spool.append([block(0), block(3)])
    spool.append([block(6)])
    spool.close()
    await Store(database).write(W, [block(0), block(3)])  # and the process died here

    async with logging(postgres.dsn(name), tmp_path) as (_, metrics):
        await until(lambda: not files(tmp_path))
    assert metrics.written == 3
    assert [row[0] for row in postgres.sql(IN_ORDER, name)] == list(map(str, range(9)))


async def test_a_torn_tail_is_counted_and_the_rest_replayed(
    postgres: Postgres, name: str, tmp_path: Path
) -> None:
    """As a crash amid a write leaves it; a segment that cannot be read at all does not stand in the
    way either."""
    for writer, tail in ((W, b"torn"), (UUID(int=1), b"")):
        spool = Spool(tmp_path, writer=writer, most_bytes=1 << 20)
        spool.append([block(0)])
        spool.close()
        (segment,) = (tmp_path / str(writer)).iterdir()
        segment.write_bytes(segment.read_bytes() + tail if tail else b"somebody else's")

    async with logging(postgres.dsn(name), tmp_path) as (_, metrics):
        await until(lambda: metrics.written == 3 and metrics.torn == 2)
    assert sorted(files(tmp_path)) == [str(UUID(int=1)), "000000000000.unreadable"]


async def test_when_disk_and_memory_are_full_the_newest_are_dropped_and_counted(
    postgres: Postgres, name: str, tmp_path: Path
) -> None:
    """What was accepted stays accepted: after the outage the table has the first rows without a
    gap, and every other one is counted."""
    with postgres.stopped():
        async with logging(
            postgres.dsn(name), tmp_path, spool_bytes=20_000, memory_bytes=20_000
        ) as (log, metrics):
            for start in range(0, 400, 50):
                add(log, range(start, start + 50))
                await until(
                    lambda: (
                        not log._entries and (metrics.queued()[0] == 0 or log._full == "spool_full")
                    )
                )
            dropped = metrics.dropped["spool_full"]
            assert dropped > 0
            assert metrics.queued()[1] <= 20_000
            assert files(tmp_path)["000000000000.segment"] <= 20_000
            await asyncio.to_thread(postgres.start)
            await until(lambda: metrics.written == 400 - dropped)
            add(log, range(400, 410))
    assert metrics.dropped == {"spool_full": dropped}
    assert ids(postgres, name) == [*range(400 - dropped), *range(400, 410)]


async def test_without_a_disk_memory_bridges_an_outage(
    postgres: Postgres, name: str, tmp_path: Path
) -> None:
    """A spool that cannot be made costs nothing as long as memory lasts."""
    (tmp_path / "spool").write_text("a file")
    with postgres.stopped():
        async with logging(postgres.dsn(name), tmp_path / "spool") as (log, metrics):
            add(log, range(50))
            await until(lambda: log._full == "disk_error")
            add(log, range(50, 100))
            await asyncio.to_thread(postgres.start)
            await until(lambda: metrics.written == 100)
    assert ids(postgres, name) == list(range(100))
    assert metrics.dropped == {}


async def test_room_on_the_disk_is_used_when_memory_is_full(
    postgres: Postgres, name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The database is still stopped: what waits in memory goes to the disk, and what is answered
    from then on is logged. That predictions were dropped is in the log, with what to do."""
    listen(caplog)
    (tmp_path / "spool").write_text("a file")
    with postgres.stopped():
        async with logging(postgres.dsn(name), tmp_path / "spool", memory_bytes=20_000) as (
            log,
            metrics,
        ):
            add(log, range(100))
            dropped = metrics.dropped["memory"]
            await until(lambda: log._full == "disk_error" and "dropped" in caplog.text)
            (tmp_path / "spool").unlink()
            log.add(Answered("x" * 20_000, body=b" " * 20_000))
            await until(lambda: metrics.queued()[0] == 0)
            add(log, range(100, 110))
            await until(lambda: metrics.spooled == 110 - dropped)
    assert f"dropped {dropped} predictions: the log's memory is full" in caplog.text
    assert "either; keeping them in memory: NotADirectoryError" in caplog.text
    assert "or let the server write to HALFCORE_PREDICTION_LOG_SPOOL" in caplog.text
    assert metrics.dropped == {"memory": dropped, "disk_error": 1}


async def test_a_spool_that_became_read_only_costs_nothing_while_the_database_works(
    postgres: Postgres,
    name: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its rows are written once although their segments stay, and later ones go straight to the
    database. The segments are deleted when that is possible again."""
    listen(caplog)
    readonly = OSError(errno.EROFS, "Read-only file system")
    async with logging(postgres.dsn(name), tmp_path) as (log, metrics):
        with postgres.stopped():
            add(log, range(10))
            await until(lambda: metrics.spooled == 10)
            log._spool._own.seal()  # type: ignore[union-attr]
            with monkeypatch.context() as patch:
                patch.setattr(Path, "unlink", raising(readonly))
                patch.setattr(spool_module, "_write", raising(readonly))
                await asyncio.to_thread(postgres.start)
                await until(lambda: metrics.written == 10)
                await until(lambda: log._direct)
                add(log, range(10, 20))
                await until(lambda: metrics.written == 20)
                assert "000000000000.segment" in files(tmp_path)
        with postgres.stopped():
            add(log, range(20, 30))
            await until(lambda: metrics.spooled == 20)
        await until(lambda: metrics.written == 30)
    assert ids(postgres, name) == list(range(30))
    assert files(tmp_path) == {}
    assert caplog.text.count("cannot delete predictions from the disk") == 1
    assert metrics.dropped == {}


def raising(error: OSError) -> Callable[..., Any]:
    """A function that fails."""

    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


async def test_what_neither_takes_at_the_end_is_counted(
    postgres: Postgres, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No database and no disk: the loss is said."""
    monkeypatch.setattr(module, "LAST_WRITE_S", 0.1)
    (tmp_path / "spool").write_text("a file")
    with postgres.stopped():
        async with logging(postgres.dsn(name), tmp_path / "spool") as (log, metrics):
            add(log, range(50))
    assert metrics.dropped == {"shutdown": 50}


async def test_a_table_that_is_missing_is_an_outage(postgres: Postgres, tmp_path: Path) -> None:
    """Rows wait on the disk until somebody has migrated the database."""
    name = postgres.create_database()
    async with logging(postgres.dsn(name), tmp_path) as (log, metrics):
        add(log, range(10))
        await until(lambda: metrics.spooled == 10)
        database = Database(postgres.dsn(name))
        await migrate(database, read(), say=lambda _: None)
        await database.close()
        await until(lambda: metrics.written == 10)
    assert ids(postgres, name) == list(range(10))


async def test_a_share_is_a_share(postgres: Postgres, name: str, tmp_path: Path) -> None:
    """Chosen at random, so neither none nor all of 2,000."""
    async with logging(postgres.dsn(name), tmp_path, share=0.5) as (log, metrics):
        add(log, range(2000))
    assert 700 < metrics.written < 1300
    assert metrics.dropped == {}


async def test_closing_amid_a_delivery_loses_and_doubles_nothing(
    postgres: Postgres, name: str, tmp_path: Path
) -> None:
    """At whatever moment the end comes."""
    total = 0
    for pause_s in (0.0, 0.249, 0.251, 0.253, 0.256, 0.26):
        with suppress(TimeoutError):
            async with logging(postgres.dsn(name), tmp_path) as (log, _):
                add(log, range(total, total + 1000))
                total += 1000
                await asyncio.sleep(pause_s)
    counted = postgres.sql(
        "SELECT count(*), count(DISTINCT request_id) FROM halfcore.prediction_log", name
    )
    assert counted == [(str(total), str(total))]
