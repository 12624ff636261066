"""Migrations against a real PostgreSQL: once, in order, whole, by one at a time."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from halfcore.postgres.database import Database, DatabaseError
from halfcore.postgres.migrate import Migration, MigrationError, migrate, read
from support.postgres import PASSWORD, Postgres

ONE = Migration("0001_one.sql", "CREATE TABLE one (a int);")
TWO = Migration("0002_two.sql", "CREATE TABLE two (a int); INSERT INTO two VALUES (1);")


@pytest.fixture
def name(postgres: Postgres) -> str:
    """An empty database."""
    return postgres.create_database()


@pytest.fixture
async def database(postgres: Postgres, name: str) -> AsyncIterator[Database]:
    """The server's way to it."""
    database = Database(postgres.dsn(name))
    yield database
    await database.close()


def applied(postgres: Postgres, name: str) -> list[str]:
    """What the database says was applied, in that order."""
    return [
        row[0]
        for row in postgres.sql(
            "SELECT name FROM halfcore.schema_migrations ORDER BY applied_at, name", name
        )
    ]


async def test_files_are_applied_once_and_in_order(
    postgres: Postgres, name: str, database: Database
) -> None:
    """A second run has nothing to do; a new file is applied to what is there."""
    said: list[str] = []

    counts = [
        await migrate(database, files, say=said.append)
        for files in ([ONE], [ONE], [ONE, TWO], [ONE, TWO])
    ]

    assert counts == [1, 0, 1, 0]
    assert said == ["0001_one.sql", "0002_two.sql"]
    assert applied(postgres, name) == [ONE.name, TWO.name]


async def test_an_owner_of_the_schema_need_not_be_allowed_to_create_one(
    postgres: Postgres, name: str
) -> None:
    """As where another one makes the schema, or takes that right away after the first run."""
    make = "CREATE ROLE schema_owner LOGIN PASSWORD 'x'; CREATE SCHEMA halfcore AUTHORIZATION"
    postgres.sql(f"{make} schema_owner", name)
    database = Database(postgres.dsn(name, user="schema_owner", password="x"))
    try:
        assert await migrate(database, read(), say=str) == len(read())
        assert await migrate(database, read(), say=str) == 0
    finally:
        await database.close()
        postgres.terminate("usename = 'schema_owner'")
        postgres.sql("DROP OWNED BY schema_owner; DROP ROLE schema_owner", name)


async def test_two_runs_at_once_apply_every_file_once(postgres: Postgres, name: str) -> None:
    """While one applies a file the others wait, and then find it done."""
    slow = ONE._replace(sql="SELECT pg_sleep(0.2); CREATE TABLE one (a int);")
    databases = [Database(postgres.dsn(name)) for _ in range(4)]

    counts = await asyncio.gather(
        *(migrate(database, [slow, TWO], say=str) for database in databases)
    )

    assert sum(counts) == 2
    assert postgres.sql("SELECT count(*) FROM two", name) == [("1",)]
    for database in databases:
        await database.close()


@pytest.mark.parametrize(
    ("files", "says"),
    [
        (
            [ONE._replace(sql="CREATE TABLE one (b int);"), TWO],
            r"0001_one\.sql was changed after it was applied",
        ),
        ([TWO], r"0001_one\.sql was applied but is not among the files"),
        ([ONE, Migration("0001_zero.sql", ""), TWO], r"0001_zero\.sql is before 0002_two\.sql"),
    ],
    ids=["changed", "gone", "late"],
)
async def test_what_contradicts_the_database_is_refused(
    postgres: Postgres, name: str, database: Database, files: list[Migration], says: str
) -> None:
    """Nothing is applied, and the message names the file."""
    await migrate(database, [ONE, TWO], say=str)

    with pytest.raises(MigrationError, match=says):
        await migrate(
            database, [*files, Migration("0003_three.sql", "CREATE TABLE three (a int)")], say=str
        )

    assert applied(postgres, name) == [ONE.name, TWO.name]


async def test_an_older_halfcore_gets_on_with_a_newer_schema(database: Database) -> None:
    """Rolling the server back does not need the schema rolled back."""
    await migrate(database, [ONE, TWO], say=str)

    assert await migrate(database, [ONE], say=str) == 0


async def test_a_file_that_fails_leaves_nothing(
    postgres: Postgres, name: str, database: Database
) -> None:
    """Its own statements are undone, those of files before it stay."""
    broken = TWO._replace(sql="CREATE TABLE two (a int); SELECT 1/0;")

    with pytest.raises(DatabaseError, match="DivisionByZeroError: division by zero"):
        await migrate(database, [ONE, broken], say=str)

    assert applied(postgres, name) == [ONE.name]
    assert postgres.sql("SELECT to_regclass('two') IS NULL", name) == [("t",)]
    assert await migrate(database, [ONE, TWO], say=str) == 1


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (["1_one.sql"], "1_one.sql"),
        (["0001_one.sql", "0001_two.sql"], "the same number"),
        (["0001_one.txt"], "expected"),
    ],
)
def test_misnamed_files_are_refused(tmp_path: Path, names: list[str], says: str) -> None:
    """Their order would be a matter of luck."""
    for name in names:
        (tmp_path / name).write_text("")

    with pytest.raises(MigrationError, match=says):
        read(tmp_path)


def run_migrate(url: str, *flags: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """`halfcore migrate`."""
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith("HALFCORE_")
    } | {"DATABASE_URL": url, **settings}
    return subprocess.run(
        [sys.executable, "-m", "halfcore", "migrate", *flags],
        env=environment,
        capture_output=True,
        text=True,
        timeout=90,
    )


def test_the_command_applies_the_packaged_files(postgres: Postgres, name: str) -> None:
    """Twice, and it says what it did."""
    first, second = run_migrate(postgres.dsn(name)), run_migrate(postgres.dsn(name))

    files = [migration.name for migration in read()]
    assert first.stdout.splitlines() == [
        *(f"applied {file}" for file in files),
        f"{len(files)} applied, the schema is up to date",
    ]
    assert second.stdout.splitlines() == ["0 applied, the schema is up to date"]
    assert first.returncode == second.returncode == 0
    assert applied(postgres, name) == files


def test_the_command_says_it_as_json(postgres: Postgres, name: str) -> None:
    """The names of what was applied now, and nothing else."""
    found = [run_migrate(postgres.dsn(name), "--json").stdout for _ in range(2)]

    files = [migration.name for migration in read()]
    assert [json.loads(each) for each in found] == [{"applied": files}, {"applied": []}]


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("", "expected HALFCORE_DATABASE_URL or DATABASE_URL"),
        ("{right}_none", "InvalidCatalogNameError"),
        ("{wrong}", "InvalidPasswordError"),
        ("postgresql://u:s3cret/in@127.0.0.1/db", "an @ in a wrong place"),
        ("postgresql://u:s3cret@127.0.0.1:1/db", "ConnectionRefusedError"),
        ("postgresql://u:s3cret@127.0.0.1:x/db", "a port that is not a number from 1 to 65535"),
    ],
    ids=["none", "no such database", "wrong password", "not a URL", "nobody there", "no port"],
)
def test_a_database_that_is_not_reached_ends_the_command_with_one_line(
    postgres: Postgres, url: str, says: str
) -> None:
    """With exit code 2, and without the password."""
    done = run_migrate(url.format(right=postgres.dsn(), wrong=postgres.dsn(password="s3cret")))

    assert done.returncode == 2
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "s3cret" not in done.stderr + done.stdout
    assert PASSWORD not in done.stderr + done.stdout


def test_a_database_that_does_not_answer_ends_the_command_within_its_timeout(
    postgres: Postgres, name: str
) -> None:
    """That of a connection: ten minutes are for a statement of a large migration alone."""
    with postgres.hung():
        done = run_migrate(postgres.dsn(name), HALFCORE_DATABASE_TIMEOUT_S="0.5")

    assert done.returncode == 2
    assert f"cannot migrate the database at 127.0.0.1:{postgres.port}/{name}: " in done.stderr
    assert "no answer in time; see that its URL is right" in done.stderr


def test_a_database_that_takes_no_writes_is_named(postgres: Postgres, name: str) -> None:
    """As a standby, or one that is set to read only."""
    postgres.sql(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    done = run_migrate(postgres.dsn(name))

    assert done.returncode == 2
    assert "read-only transaction: it is a standby or read-only, let the URL name" in done.stderr
