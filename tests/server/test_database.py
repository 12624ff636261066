"""Connections to a PostgreSQL that fails: every wait ends, what failed is not used again, and the password is not told."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from halfcore.database import Database, DatabaseError, place
from support.postgres import PASSWORD, Postgres


@pytest.fixture
async def database(postgres: Postgres) -> AsyncIterator[Database]:
    """Room for one connection, and little patience."""
    database = Database(postgres.dsn(), max_connections=1, timeout_s=0.3)
    yield database
    await database.close()


async def backend(database: Database) -> int:
    """The server process behind the next connection."""
    async with database.connection() as connection:
        return int(await connection.fetchval("SELECT pg_backend_pid()"))


async def test_a_connection_is_used_again_unless_something_failed_on_it(database: Database) -> None:
    """An error in the block, in PostgreSQL or not, ends the connection; the pool is never short of it."""
    first = await backend(database)
    assert await backend(database) == first

    with pytest.raises(DatabaseError, match="DivisionByZeroError"):
        async with database.connection() as connection:
            await connection.execute("SELECT 1/0")
    second = await backend(database)
    with pytest.raises(KeyError):
        async with database.connection():
            raise KeyError
    third = await backend(database)

    assert len({first, second, third}) == 3


async def test_every_wait_ends(database: Database, postgres: Postgres) -> None:
    """For a place in the pool, for a statement, for a connection to a server that hangs; afterwards all is well."""
    async with database.connection():
        with pytest.raises(DatabaseError, match="TimeoutError: no answer in time"):
            await backend(database)
    with pytest.raises(DatabaseError, match="TimeoutError: no answer in time"):
        async with database.connection() as connection:
            await connection.execute("SELECT pg_sleep(60)")
    with postgres.hung(), pytest.raises(DatabaseError, match="TimeoutError: no answer in time"):
        await backend(database)
    assert database.away

    assert await backend(database)
    assert not database.away


async def test_a_cancelled_user_gives_the_connection_back(database: Database) -> None:
    """The pool's only place is free again."""
    started = asyncio.Event()

    async def use() -> None:
        async with database.connection() as connection:
            started.set()
            await connection.execute("SELECT pg_sleep(0.2)")

    task = asyncio.create_task(use())
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert await backend(database)


async def test_an_error_does_not_quote_the_password(database: Database, caplog: pytest.LogCaptureFixture) -> None:
    """Not even one that PostgreSQL itself quotes."""
    with pytest.raises(DatabaseError, match=r'invalid input syntax for type integer: "\*\*\*"'):
        async with database.connection() as connection:
            await connection.execute(f"SELECT '{PASSWORD}'::int")

    assert PASSWORD not in caplog.text
    assert PASSWORD not in database.place


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql://u:p@host:5432/db?sslmode=require", "host:5432/db"),
        ("postgres://host/db", "host/db"),
        ("postgresql://u:p%2Fq@[::1]:5432/db", "[::1]:5432/db"),
        ("postgresql:///db?host=/run/postgresql", "/db"),
    ],
)
def test_a_place_is_host_port_and_database(url: str, expected: str) -> None:
    """Nothing of who connects."""
    assert place(url) == expected


@pytest.mark.parametrize(
    "url", ["postgresql://u:p/s3cret@host/db", "postgresql://u:s3cret#x@host/db", "mysql://u:s3cret@host/db", "s3cret"]
)
def test_what_is_no_url_is_not_quoted(url: str) -> None:
    """A password that was not escaped is not taken for a path and shown."""
    with pytest.raises(DatabaseError) as raised:
        place(url)

    assert "s3cret" not in str(raised.value)
