"""PostgreSQL, which may be away: every wait is bounded, what failed is not used again, and the password is never shown.

Nothing here is on a request's path. Connections are made when they are asked for, so a server starts and serves while PostgreSQL is down,
hangs or restarts; whoever needs one tries again after `Backoff`. asyncpg is imported with the first `Database`: a server that has none does
not hold it in memory.
"""

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from halfcore.log import logger

SCHEMES = ("postgresql", "postgres")
Connection = Any
"""An `asyncpg.Connection`; asyncpg is published without types."""


class DatabaseError(Exception):
    """PostgreSQL was not reached, did not answer in time, or refused. The cause is asyncpg's or the system's; the text has no password."""


class Database:
    """A database, by its URL, through a small pool of connections.

    Args:
        url: `postgresql://USER:PASSWORD@HOST:PORT/DATABASE`, with asyncpg's parameters such as `?sslmode=require`.
        max_connections: most connections at one time.
        timeout_s: seconds that a connection may take, a free place in the pool included; and that a statement may take.

    Raises:
        DatabaseError: the URL is none.
    """

    def __init__(self, url: str, *, max_connections: int = 4, timeout_s: float = 5.0) -> None:
        import asyncpg  # see the module's docstring

        self.place = place(url)
        """Host, port and database, for people."""
        self._pool = asyncpg.create_pool(
            url,
            min_size=0,
            max_size=max_connections,
            max_inactive_connection_lifetime=60.0,
            timeout=timeout_s,
            command_timeout=timeout_s,
            server_settings={"application_name": "halfcore"},
        )
        self._errors = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, TimeoutError, ValueError)
        self._timeout_s = timeout_s
        self._secrets = _secrets(url)
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
            DatabaseError: no connection came, or what was done with it failed in PostgreSQL or on the way there.
        """
        connection = await self._connect()
        try:
            yield connection
        except BaseException as error:
            connection.terminate()  # no answer is waited for: a server that hangs gives none
            if isinstance(error, self._errors):
                raise DatabaseError(self._explain(error)) from error
            raise
        finally:
            with suppress(*self._errors):
                await self._pool.release(connection)

    async def close(self) -> None:
        """Close all connections, waiting for no answer."""
        self._pool.terminate()

    async def _connect(self) -> Connection:
        try:
            await self._pool  # makes the empty pool on the running loop; connects nowhere
            connection = await self._pool.acquire(timeout=self._timeout_s)
        except self._errors as error:
            reason = self._explain(error)
            if self._away_since is None:
                self._away_since = time.monotonic()
                logger.warning("PostgreSQL at %s is away, trying on: %s", self.place, reason)
            raise DatabaseError(reason) from error
        if self._away_since is not None:
            logger.info("PostgreSQL at %s is back after %.0f s", self.place, time.monotonic() - self._away_since)
            self._away_since = None
        return connection

    def _explain(self, error: BaseException) -> str:
        """An error for the log: one line, without the password, whoever put it there."""
        if type(error) is ValueError or type(error).__name__ == "ClientConfigurationError":
            return "the database's URL cannot be understood"  # such errors quote the part that they do not understand
        text = str(error).partition("\n")[0] or ("no answer in time" if isinstance(error, TimeoutError) else "")
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return f"{type(error).__name__}: {text}" if text else type(error).__name__


class Backoff:
    """Seconds to wait between attempts: random, so that many servers do not come at once, and longer each time up to a limit."""

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


def place(url: str) -> str:
    """Where a database is, without who connects and how.

    Raises:
        DatabaseError: not a PostgreSQL URL; the message quotes nothing of it.
    """
    parts = urlsplit(url)
    if parts.scheme not in SCHEMES:
        raise DatabaseError("the database's URL does not begin with postgresql://")
    # A password with an unescaped / ends the part that it should stand in, and would be shown as a path.
    if "@" in parts.path + parts.query + parts.fragment:
        raise DatabaseError("the database's URL has an @ in a wrong place: in a password / # ? are written as %2F %23 %3F")
    return parts.netloc.rpartition("@")[2] + parts.path


def _secrets(url: str) -> set[str]:
    """The password as it may be written."""
    parts = urlsplit(url)
    found = {parts.password or "", *parse_qs(parts.query).get("password", [])}
    return {spelling for secret in found for spelling in (secret, unquote(secret)) if spelling}
