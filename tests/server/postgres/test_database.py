"""Connections to a PostgreSQL that fails: every wait ends, what failed is not used again, and the
password is not shown."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from halfcore.postgres.database import Database, DatabaseError, check, place
from support.log import listen
from support.postgres import PASSWORD, USER, Postgres


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
    """An error in the block, in PostgreSQL or not, ends the connection; the pool is never short of
    it."""
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
    """For a place in the pool, for a statement, for a connection to a server that hangs; afterwards
    all is well."""
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


async def test_an_outage_is_logged_once_whatever_uses_the_database(
    postgres: Postgres, log: pytest.LogCaptureFixture
) -> None:
    """The catalogue and the prediction log have a database each, of the same place."""
    databases = [Database(postgres.dsn(), max_connections=1, timeout_s=0.3) for _ in range(2)]
    with postgres.hung():
        for database in databases:
            with pytest.raises(DatabaseError):
                await backend(database)
    assert log.text.count("cannot reach PostgreSQL") == 1
    assert await backend(databases[0])
    assert [database.away for database in databases] == [False, True]
    assert "reachable again" not in log.text
    assert await backend(databases[1])
    assert log.text.count("reachable again") == 1
    for database in databases:
        await database.close()


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


async def test_an_error_does_not_quote_the_password(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """Not even one that PostgreSQL itself quotes."""
    with pytest.raises(DatabaseError, match=r'invalid input syntax for type integer: "\*\*\*"'):
        async with database.connection() as connection:
            await connection.execute(f"SELECT '{PASSWORD}'::int")

    assert PASSWORD not in caplog.text
    assert PASSWORD not in database.place


@pytest.mark.parametrize(
    ("statements", "says"),
    [
        ("SELECT FROM halfcore.feature_catalogue", "does not exist: run `halfcore migrate`"),
        ("SET ROLE pg_monitor; SELECT FROM pg_authid", "permission denied .*: grant this user its"),
        (
            "SET default_transaction_read_only = on; CREATE TABLE t ()",
            "it is a standby or read-onl",
        ),
    ],
    ids=["not migrated", "no right", "read-only"],
)
async def test_an_error_says_what_to_do(database: Database, statements: str, says: str) -> None:
    """Where an operator, not a programmer, can help."""

    async def run() -> None:
        async with database.connection() as connection:
            for statement in statements.split("; "):
                await connection.execute(statement)

    with pytest.raises(DatabaseError, match=says):
        await run()


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
    "url",
    [
        "postgresql://u:p/s3cret@host/db",
        "postgresql://u:s3cret#x@host/db",
        "mysql://u:s3cret@host/db",
        "s3cret",
    ],
)
def test_what_is_no_url_is_not_quoted(url: str) -> None:
    """A password that was not escaped is not taken for a path and shown."""
    with pytest.raises(DatabaseError) as raised:
        place(url)

    assert "s3cret" not in str(raised.value)


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """The server's log."""
    return listen(caplog)


RIGHT = [
    "postgresql://u:p@host:5432/db",
    "postgres://u@host/db?sslmode=require&application_name=x&search_path=a,b&options=-c%20jit%3Doff",
    "postgresql://u:p%40q%25@[::1]:5432/db",
    "postgresql://u:p@one:5432,two:5433/db?target_session_attrs=read-write",
    "postgresql://u:p@one,two/db?port=5432,5433",
    "postgresql://u:p@/db?host=one,[::1]&port=5432,5433",
    "postgresql://u:p@/db?host=/run/postgresql&port=5433",
    "postgresql://u:p@%2Frun%2Fpostgresql/db",
    "postgresql://host/db?user=u&password=p",
    "postgresql:///?service=known",
    "postgresql://u@host/db?sslmode=verify-full&sslrootcert=/etc/ssl/certs/ca-certificates.crt",
]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home directory with a service file, and none of libpq's variables."""
    for variable in [name for name in os.environ if name.startswith("PG")]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("HOME", str(tmp_path))
    services = "[known]\nhost=somewhere\nuser=u\npassword=s3cret\n[wrong]\nport=s3cret\n"
    (tmp_path / ".pg_service.conf").write_text(services)
    (tmp_path / "text.crt").write_text("no certificate: s3cret")
    return tmp_path


@pytest.mark.parametrize("url", RIGHT)
@pytest.mark.usefixtures("home")
def test_a_url_in_any_of_libpq_s_forms_is_taken(url: str) -> None:
    """Nothing is connected to."""
    if "ca-certificates" in url and not Path("/etc/ssl/certs/ca-certificates.crt").exists():
        pytest.skip("this machine has no certificates")
    check(url)


FULL = "postgresql://u:s3cret@host/db?sslmode=verify-full"
WRONG = {
    "postgresql://u:s3cret@host:54x2/db": (
        "the host of the database's URL has a port that is not a number from 1 to 65535"
    ),
    "postgresql://u:s3cret@host:0/db": "a port that is not a number from 1 to 65535",
    "postgresql://u:s3cret@host:65536/db": "a port that is not a number from 1 to 65535",
    "postgresql://host:s3cret/db": (
        "a port that is not a number from 1 to 65535, expected "
        "postgresql://USER:PASSWORD@HOST:PORT/DATABASE"
    ),
    "postgresql://u:s3cret@one:5432,two:x/db": (
        "host 2 of the database's URL has a port that is not"
    ),
    "postgresql://u:s3cret@one,,two/db": "host 2 of the database's URL is empty",
    "postgresql://u:s3cret@one,two/db?port=1,2,3": (
        "port in the database's URL has 3 ports for 2 hosts"
    ),
    "postgresql://u:s3cret@/db?host=x&port=5432x": "port in the database's URL is not a number",
    "postgresql://u:s3cret@::1:5432/db": "an IPv6 address is in brackets",
    "postgresql://u:s3cret@[::1/db": "an IPv6 address is in brackets",
    "postgresql://u:s3cret%zz@host/db": "write a % in a password as %25",
    "postgresql://u:s3cret%00@host/db": "write a % in a password as %25",
    "postgresql://u:s3cret%ff@host/db": "write a % in a password as %25",
    "postgresql://u:s3c@ret@host/db": "in a password, write @ / # ? as %40 %2F %23 %3F",
    "postgresql://u:s3cret@host/db#more": "what follows it would be ignored",
    "postgresql://u:s3cret@host/db?sslmode": "not NAME=VALUE&NAME=VALUE",
    "postgresql://u:s3cret@host/db?sslmode=on": (
        "sslmode in the database's URL is 'on', expected one of disable, allow, prefer, require"
    ),
    "postgresql://u:s3cret@host/db?target_session_attrs=rw": "expected one of any, primary",
    "postgresql://u:s3cret@host/db?sslnegotiation=direct": "needs sslmode=require",
    "postgresql://u:s3cret@host/db?sslmode=require&ssl_min_protocol_version=1.2": (
        "expected one of TLSv1, TLSv1.1, TLSv1.2, TLSv1.3"
    ),
    "postgresql://u:s3cret@host/db?connect_timeout=3": (
        "connect_timeout, which is not supported: remove it (HALFCORE_"
    ),
    "postgresql://u:s3cret@host/db?sslmode=require&channel_binding=require": (
        "sslmode=verify-full with sslrootcert proves the server"
    ),
    "postgresql://u:s3cret@host/db?pgbouncer=true": "HALFCORE_DATABASE_POOLER=transaction",
    FULL: (
        "as sslrootcert=/PATH/root.crt in the URL or in PGSSLROOTCERT, or put it at "
        "HOME/.postgresql/root.crt"
    ),
    f"{FULL}&sslrootcert=/no/root.crt": (
        "sslrootcert in the database's URL: /no/root.crt: No such file or directory"
    ),
    f"{FULL}&sslrootcert=HOME/text.crt": "text.crt holds no certificate in PEM form",
    f"{FULL}&sslrootcert=system": "is system, which is not supported: give the system's file",
    "postgresql://u:s3cret@host/db?sslmode=require&sslcert=/no/client.crt": (
        "/no/client.crt: there is no such file"
    ),
    "postgresql://u:s3cret@host/db?sslmode=require&sslcert=HOME/text.crt": (
        "cannot be used with its key (sslkey, HOME/.postg"
    ),
    "postgresql:///?service=unknown": (
        "the service file HOME/.pg_service.conf has no [unknown], expected one of: known, wrong"
    ),
    "postgresql:///?service=wrong": "port in the service file is not a number",
}


@pytest.mark.parametrize("url", WRONG)
def test_what_is_wrong_with_a_url_is_said_without_the_password(url: str, home: Path) -> None:
    """One line that names the part and what was expected; a certificate or a service that is
    missing is named with its place."""
    with pytest.raises(DatabaseError) as raised:
        check(url.replace("HOME", str(home)))
    said = str(raised.value)
    assert WRONG[url].replace("HOME", str(home)) in said
    assert "s3c" not in said
    assert "\n" not in said


def test_libpq_s_variables_are_read_too(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the URL says nothing; the message names the variable."""
    monkeypatch.setenv("PGSSLMODE", "verify-ca")
    with pytest.raises(
        DatabaseError, match=f"PGSSLMODE is verify-ca, .* or put it at {home}/.postgresql/root.crt"
    ):
        check("postgresql://u@host/db")
    monkeypatch.setenv("PGPORT", "x")
    with pytest.raises(DatabaseError, match="PGPORT is not a number from 1 to 65535"):
        check("postgresql://u@host/db?sslmode=disable")
    monkeypatch.setenv("PGSERVICEFILE", "/no/such/file")
    with pytest.raises(
        DatabaseError,
        match="the service file /no/such/file: No such file or directory; PGSERVICEFILE names "
        "another",
    ):
        check("postgresql://?service=known")


def test_a_process_without_a_name_needs_a_user_in_the_url(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a container whose user is a number."""
    for variable in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 987_654)
    with pytest.raises(DatabaseError, match="names no user, and this process's user has no name"):
        check("postgresql://host/db")


@pytest.mark.parametrize(
    ("url", "says"),
    [
        (
            "postgresql://u:s3cret@no-such-host.invalid/db",
            r"gaierror: .*(not known|resolution|associated)",
        ),
        ("postgresql://u:s3cret@127.0.0.1:9/db", "Connection refused|Connect call failed"),
        (
            "postgresql://u:s3cret@127.0.0.1:9,127.0.0.1:10/db",
            "Connection refused|Connect call failed",
        ),
        ("postgresql://u:s3cret@/db?host=HOME", "No such file or directory"),
        (
            "postgresql://USER:s3cret@127.0.0.1:PORT/postgres",
            "InvalidPasswordError: password authentication failed",
        ),
        (
            "postgresql://USER:PASSWORD@127.0.0.1:PORT/no_such_db",
            'InvalidCatalogNameError: database "no_such_db" does not exist',
        ),
        (
            "postgresql://USER:PASSWORD@127.0.0.1:PORT/postgres?sslmod=require",
            'unrecognized configuration parameter "sslmod"',
        ),
        (
            "postgresql://USER:PASSWORD@127.0.0.1:PORT/postgres?sslmode=require",
            "ConnectionError: .*(SSL|ssl)",
        ),
    ],
)
async def test_what_only_a_connection_finds_out_is_logged_with_its_reason(
    url: str, says: str, home: Path, postgres: Postgres, log: pytest.LogCaptureFixture
) -> None:
    """One line: where, and why."""
    known = {"HOME": str(home), "USER": USER, "PASSWORD": PASSWORD, "PORT": str(postgres.port)}
    for word, meant in known.items():
        url = url.replace(word, meant)
    database = Database(url, timeout_s=5.0)
    with pytest.raises(DatabaseError, match=says):
        await backend(database)
    await database.close()
    (line,) = [record.getMessage() for record in log.records]
    assert line.startswith(f"cannot reach PostgreSQL at {database.place}, retrying: ")
    assert len(line) > len(f"cannot reach PostgreSQL at {database.place}, retrying: ") + 10
    assert PASSWORD not in line
    assert "s3cret" not in line


async def test_a_certificate_that_goes_away_is_named_in_the_log(
    home: Path, postgres: Postgres
) -> None:
    """The URL is read again when a connection fails for a reason that is not PostgreSQL's."""
    (home / ".postgresql").mkdir()
    database = Database(postgres.dsn() + "?sslmode=verify-full", timeout_s=5.0)
    with pytest.raises(
        DatabaseError, match="there is no root certificate to verify the server's with"
    ):
        await backend(database)
    await database.close()
