"""PostgreSQL, which may be away: every wait is bounded, what failed is not used again, and the
password is never shown.

Nothing here is on a request's path. Connections are made when they are asked for, so a server
starts and serves while PostgreSQL is down, hangs or restarts; whoever needs one tries again after
`Backoff`. asyncpg is imported with the first `Database`: a server that has none does not hold it in
memory.
"""

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, Literal

from halfcore.log import logger, reason_of
from halfcore.postgres.errors import DatabaseError
from halfcore.postgres.url import check, place, secrets

Connection = Any
"""An `asyncpg.Connection`; asyncpg is published without types."""
Pooler = Literal["none", "session", "transaction"]
"""What stands between this server and PostgreSQL; see the setting `database_pooler`."""
_POOLED = ("InvalidSQLStatementNameError", "DuplicatePreparedStatementError")
"""asyncpg's names for a prepared statement that another session has made, or has not: what a pooler
of transactions leads to."""
_warned: set[str] = set()
"""Places of which the log said that a pooler is there."""


class Database:
    """A database, by its URL, through a small pool of connections.

    Args:
        url: `postgresql://USER:PASSWORD@HOST:PORT/DATABASE`, with asyncpg's parameters such as
            `?sslmode=require`.
        pooler: `transaction` if whatever is done outside a transaction may be done in another
            session than what follows.
        max_connections: most connections at one time.
        timeout_s: seconds that a connection may take, a free place in the pool included; and that a
            statement may take.

    Raises:
        DatabaseError: the URL is none.
    """

    def __init__(
        self, url: str, *, pooler: Pooler = "none", max_connections: int = 4, timeout_s: float = 5.0
    ) -> None:
        import asyncpg  # see the module's docstring

        self.place = place(url)
        """Host, port and database, for people."""
        self.notifies = pooler != "transaction"
        """Whether LISTEN works: it belongs to a session."""
        self._url = url
        self._look_for_pooler = pooler == "none"
        self._pool = asyncpg.create_pool(
            url,
            min_size=0,
            max_size=max_connections,
            max_inactive_connection_lifetime=60.0,
            timeout=timeout_s,
            command_timeout=timeout_s,
            server_settings={"application_name": "halfcore"},
            # Behind a pooler of transactions a session is everybody's: no statement is prepared
            # under a name, and nothing is reset, which would free the advisory locks of others.
            **({"statement_cache_size": 0, "reset": _leave} if pooler == "transaction" else {}),
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
        self._away_since: float | None = None

    @property
    def away(self) -> bool:
        """Whether the last attempt to get a connection failed."""
        return self._away_since is not None

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A connection from the pool; if anything fails on it, it is thrown away.

        Waits at most `timeout_s`. Cancelling is safe.

        Raises:
            DatabaseError: no connection came, or what was done with it failed in PostgreSQL or on
                the way there.
        """
        connection = await self._connect()
        try:
            if self._look_for_pooler:
                await self._notice_pooler(connection)
            yield connection
        except BaseException as error:
            with suppress(*self._errors):  # one that broke has left the pool already
                connection.terminate()  # no answer is waited for: a server that hangs gives none
            if isinstance(error, self._errors):
                raise DatabaseError(self._explain(error)) from error
            raise
        finally:
            with suppress(*self._errors):
                await self._pool.release(connection)

    async def close(self) -> None:
        """Close all connections, waiting for no answer."""
        with suppress(*self._errors):  # a pool that was never used
            self._pool.terminate()

    async def _connect(self) -> Connection:
        try:
            await self._pool  # makes the empty pool on the running loop; connects nowhere
            connection = await self._pool.acquire(timeout=self._timeout_s)
        except Exception as error:
            # Whatever it is: asyncpg lets out what the system's resolver, its files and the ssl
            # module raise.
            reason = self._explain(error)
            if self._away_since is None:
                self._away_since = time.monotonic()
                logger.warning("cannot reach PostgreSQL at %s, retrying: %s", self.place, reason)
            raise DatabaseError(reason) from error
        if self._away_since is not None:
            logger.info(
                "PostgreSQL at %s is reachable again after %.0f s",
                self.place,
                time.monotonic() - self._away_since,
            )
            self._away_since = None
        return connection

    async def _notice_pooler(self, connection: Connection) -> None:
        """Say once if a pooler stands before PostgreSQL: it tells its clients another process than
        the session's."""
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
        """An error for the log: one line, without the password, whoever put it there."""
        if not hasattr(
            error, "sqlstate"
        ):  # not PostgreSQL's own: the URL may lead to a file that is not there any more
            try:
                check(self._url)
            except DatabaseError as wrong:
                return str(wrong)
        if type(error) is ValueError or type(error).__name__ == "ClientConfigurationError":
            # Such errors quote the part that they do not understand
            return "the database's URL cannot be understood"
        text = reason_of(error)
        for secret in self._secrets:
            text = text.replace(secret, "***")
        if type(error).__name__ in _POOLED and self.notifies:
            text += (
                ": a pooler of transactions (PgBouncer) stands before PostgreSQL, set "
                "HALFCORE_DATABASE_POOLER=transaction"
            )
        return text


async def _leave(connection: Connection) -> None:
    """Leave a session as it is."""


@asynccontextmanager
async def transaction(connection: Connection) -> AsyncIterator[None]:
    """A transaction that is committed at the end of the block.

    Not asyncpg's: that waits, after an error or a cancellation, for the ROLLBACK of a server that
    may hang. Here `Database.connection` ends the connection, and with it the transaction.
    """
    await connection.execute("BEGIN")
    yield
    await connection.execute("COMMIT")


class Backoff:
    """Seconds to wait between attempts: random, so that many servers do not come at once, and
    longer each time up to a limit."""

    def __init__(self, *, first_s: float = 0.2, most_s: float = 5.0) -> None:
        self._first_s = first_s
        self._most_s = most_s
        self.reset()

    def reset(self) -> None:
        """Begin anew, after a success."""
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
