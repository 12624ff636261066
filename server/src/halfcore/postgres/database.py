"""PostgreSQL, which may be unreachable: every wait is bounded, a connection that failed is not used
again, and the password is never shown.

Nothing here is on a request's path. Connections are made when they are needed, so a server starts
and serves while PostgreSQL is down, hangs or restarts; the caller retries after `Backoff`. asyncpg
is imported with the first `Database`, so that a server without one does not hold it in memory.
"""

import asyncio
import random
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, Literal
from weakref import WeakKeyDictionary

from halfcore.log import logger, reason_of
from halfcore.postgres.errors import DatabaseError
from halfcore.postgres.url import check, place, secrets

Connection = Any
"""An `asyncpg.Connection`; asyncpg has no type annotations."""
Pooler = Literal["none", "session", "transaction"]
"""The kind of pooler between this server and PostgreSQL; see the setting `database_pooler`."""
_POOLED = ("InvalidSQLStatementNameError", "DuplicatePreparedStatementError")
"""asyncpg's errors for a prepared statement that is unknown in this session, or exists already: the
consequence of a pooler of transactions."""
_REMEDIES = {
    "42P01": "run `halfcore migrate`",
    "42703": "run `halfcore migrate`",
    "42883": "run `halfcore migrate`",
    "3F000": "run `halfcore migrate`",
    "42501": "grant this user its rights (docs/catalogue.md, docs/prediction-log.md)",
    "23514": "prediction_log_YYYYMMDD of that day is detached, attach it or rename it",
    "25006": "it is a standby or read-only, let the URL name the primary",
}
"""SQLSTATE → what to do: a table, column, function or schema is missing; a right is; a row's
partition is; it takes no writes."""
_warned: set[str] = set()
"""Places for which the warning about a pooler was logged."""


class _Outages:
    """Which databases of this process cannot be reached. There may be several of one place, in
    several threads: the log has each outage of a place once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._since: dict[str, WeakKeyDictionary[Database, float]] = {}

    def begins(self, database: "Database") -> bool:
        """A database cannot be reached; whether it is the first of its place."""
        with self._lock:
            away = self._since.setdefault(database.place, WeakKeyDictionary())
            first = not away
            away.setdefault(database, time.monotonic())
            return first

    def ends(self, database: "Database") -> float | None:
        """A database is reachable or closed. Returns how many seconds the outage took if it was
        the last of its place that could not be reached; else None."""
        with self._lock:
            away = self._since.setdefault(database.place, WeakKeyDictionary())
            since = min(away.values(), default=0.0)
            last = away.pop(database, None) is not None and not away
            return time.monotonic() - since if last else None

    def has(self, database: "Database") -> bool:
        """Whether a database could not be reached when it was tried last."""
        with self._lock:
            return database in self._since.get(database.place, {})


_outages = _Outages()


class Database:
    """A database, with a small pool of connections.

    Args:
        url: `postgresql://USER:PASSWORD@HOST:PORT/DATABASE`, with asyncpg's parameters such as
            `?sslmode=require`.
        pooler: `transaction` if each statement outside a transaction may run in another session
            than the next one.
        max_connections: most connections at one time.
        timeout_s: seconds that connecting may take, the wait for a free place in the pool included;
            and seconds that a statement may take.
        statement_timeout_s: seconds that a statement may take, if that differs.

    Raises:
        DatabaseError: the URL is not valid.
    """

    def __init__(
        self,
        url: str,
        *,
        pooler: Pooler = "none",
        max_connections: int = 4,
        timeout_s: float = 5.0,
        statement_timeout_s: float | None = None,
    ) -> None:
        import asyncpg  # see the module's docstring

        self.place = place(url)
        """Host, port and database, for messages."""
        self.notifies = pooler != "transaction"
        """Whether LISTEN works: it belongs to a session."""
        self._url = url
        self._look_for_pooler = pooler == "none"
        self._pool = _pool(
            url, pooler, max_connections, timeout_s, statement_timeout_s or timeout_s
        )
        self._errors = (
            asyncpg.PostgresError,
            asyncpg.InterfaceError,
            asyncpg.InternalClientError,
            OSError,
            TimeoutError,
            ValueError,
        )
        self._timeout_s = timeout_s
        self._secrets = secrets(url)

    @property
    def away(self) -> bool:
        """Whether the last attempt to get a connection failed."""
        return _outages.has(self)

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A connection from the pool; it is discarded if anything fails while it is used.

        Waits at most `timeout_s`. Cancelling is safe.

        Raises:
            DatabaseError: no connection could be made, or a statement on it failed.
        """
        connection = await self._connect()
        try:
            if self._look_for_pooler:
                await self._notice_pooler(connection)
            yield connection
        except BaseException as error:
            with suppress(*self._errors):  # a broken connection has left the pool already
                connection.terminate()  # does not wait for an answer: the server may hang
            if isinstance(error, self._errors):
                raise DatabaseError(self._explain(error)) from error
            raise
        finally:
            with suppress(*self._errors):
                await self._pool.release(connection)

    async def close(self) -> None:
        """Close all connections without waiting for an answer."""
        _outages.ends(self)
        with suppress(*self._errors):  # raised if the pool was never used
            self._pool.terminate()

    async def _connect(self) -> Connection:
        try:
            await self._pool  # makes the empty pool on the running loop; does not connect
            connection = await self._pool.acquire(timeout=self._timeout_s)
        except Exception as error:
            # Any exception: asyncpg passes on what the system's resolver, files and the ssl module
            # raise.
            reason = self._explain(error)
            if _outages.begins(self):
                logger.warning("cannot reach PostgreSQL at %s, retrying: %s", self.place, reason)
            raise DatabaseError(reason) from error
        if (seconds := _outages.ends(self)) is not None:
            logger.info("PostgreSQL at %s is reachable again after %.0f s", self.place, seconds)
        return connection

    async def _notice_pooler(self, connection: Connection) -> None:
        """Log a warning, once, if a pooler is in front of PostgreSQL: it gives its clients another
        process id than the session's."""
        self._look_for_pooler = False
        process = await connection.fetchval("SELECT pg_backend_pid()")
        if process != connection.get_server_pid() and self.place not in _warned:
            _warned.add(self.place)
            logger.warning(
                "PostgreSQL at %s is behind a connection pooler: if it pools transactions "
                "(PgBouncer's pool_mode = transaction), set "
                "HALFCORE_DATABASE_POOLER=transaction; if it pools sessions, "
                "HALFCORE_DATABASE_POOLER=session, which ends this warning",
                self.place,
            )

    def _explain(self, error: BaseException) -> str:
        """An error for the log: one line, with the password removed."""
        # If it is not PostgreSQL's own error, a file that the URL names may be missing now.
        if not hasattr(error, "sqlstate"):
            try:
                check(self._url)
            except DatabaseError as wrong:
                return str(wrong)
        if type(error) is ValueError or type(error).__name__ == "ClientConfigurationError":
            # Such errors quote the part that they do not understand
            return "the database's URL cannot be parsed"
        text = reason_of(error)
        for secret in self._secrets:
            text = text.replace(secret, "***")
        if type(error).__name__ in _POOLED and self.notifies:
            text += (
                ": a pooler of transactions (PgBouncer) is in front of PostgreSQL, set "
                "HALFCORE_DATABASE_POOLER=transaction"
            )
        remedy = _REMEDIES.get(getattr(error, "sqlstate", None) or "")
        return f"{text}: {remedy}" if remedy else text


def _pool(
    url: str, pooler: Pooler, max_connections: int, timeout_s: float, statement_timeout_s: float
) -> Any:
    """An empty `asyncpg.Pool`, which does not connect yet."""
    import asyncpg  # see the module's docstring

    return asyncpg.create_pool(
        url,
        min_size=0,
        max_size=max_connections,
        max_inactive_connection_lifetime=60.0,
        timeout=timeout_s,
        command_timeout=statement_timeout_s,
        server_settings={"application_name": "halfcore"},
        # Behind a pooler of transactions all clients share the sessions: no statement may be
        # prepared under a name, and a reset would free the advisory locks of other clients.
        **({"statement_cache_size": 0, "reset": _no_reset} if pooler == "transaction" else {}),
    )


async def _no_reset(connection: Connection) -> None:
    """Leave a session as it is."""


@asynccontextmanager
async def transaction(connection: Connection) -> AsyncIterator[None]:
    """A transaction that is committed at the end of the block.

    asyncpg's own is not used: after an error or a cancellation it waits for the ROLLBACK of a
    server that may hang. Here `Database.connection` ends the connection, and so the transaction.
    """
    await connection.execute("BEGIN")
    yield
    await connection.execute("COMMIT")


class Backoff:
    """Waits between attempts: random times, so that many servers do not connect at once, and longer
    each time up to a limit."""

    def __init__(self, *, first_s: float = 0.2, most_s: float = 5.0) -> None:
        self._first_s = first_s
        self._most_s = most_s
        self.reset()

    def reset(self) -> None:
        """Start again with the first delay, after a success."""
        self._next_s = self._first_s

    async def wait(self) -> None:
        """Wait before the next attempt."""
        delay_s, self._next_s = self._next_s, min(2 * self._next_s, self._most_s)
        await asyncio.sleep(delay_s * random.uniform(0.5, 1.0))  # noqa: S311  not a secret


__all__ = [
    "Backoff",
    "Connection",
    "Database",
    "DatabaseError",
    "Pooler",
    "check",
    "place",
    "transaction",
]
