"""Reads the catalogue's table: after each notification that it changed, and periodically.

A notification is only a hint. A connection that died silently delivers none, so the table is also
read every period; that read has a timeout, and so detects that the connection, or PostgreSQL,
hangs. A transaction pooler passes no notifications on, so there only the period counts.
"""

import asyncio
import random
from contextlib import suppress
from pathlib import Path
from time import monotonic

from halfcore.catalog import snapshot
from halfcore.catalog.state import Catalog
from halfcore.log import logger, reason_of
from halfcore.metrics.counters import CatalogMetrics
from halfcore.models.served import Models
from halfcore.postgres.database import Backoff, Connection, Database, DatabaseError

CHANNEL = "halfcore_feature_catalogue"
LEAST_GAP_S = 0.25
"""Least seconds between two reads: a storm of notifications costs four reads a second."""
_READ_ONLY = "25006"
"""SQLSTATE of a LISTEN during recovery, which is what a standby does all the time."""
_READ = """
SELECT model, column_name, position, kind, default_value, minimum, maximum, categories
FROM halfcore.feature_catalogue WHERE enabled AND model = ANY($1::text[])
"""


class Follower:
    """Keeps a `Catalog` up to date with the table.

    Args:
        database: has the table; may be unreachable.
        catalog: gets what was read.
        models: those whose rows are read.
        metrics: counts the reads that failed.
        hint: when set, the table is read at once.
        period_s: seconds between reads without a notification; each is up to a tenth longer or
            shorter.
        file: the catalogue is saved there whenever it changed.
    """

    def __init__(
        self,
        database: Database,
        catalog: Catalog,
        models: Models,
        metrics: CatalogMetrics,
        hint: asyncio.Event,
        *,
        period_s: float,
        file: Path,
    ) -> None:
        self._database = database
        self._catalog = catalog
        self._models = models
        self._metrics = metrics
        self._period_s = period_s
        self._file = file
        self._hint = hint
        self._tried = asyncio.Event()
        self._reason = ""
        self._standby = False
        self._ended = False
        """Whether the connection that is read was ended by the other side."""
        self._task: asyncio.Task[None] | None = None

    async def start(self, *, patience_s: float) -> None:
        """Begin to read; return once the table was read, the first attempt failed, or
        `patience_s` seconds are over."""
        if not self._database.notifies:
            logger.info(
                "reading the feature catalogue every %g s, without notifications: "
                "HALFCORE_DATABASE_POOLER=transaction has none",
                self._period_s,
            )
        self._task = asyncio.create_task(self._run())
        with suppress(TimeoutError):
            async with asyncio.timeout(patience_s):
                await self._tried.wait()

    async def stop(self) -> None:
        """End without waiting for an answer."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        backoff = Backoff()
        while True:
            try:
                async with self._database.connection() as connection:
                    self._ended = False
                    connection.add_termination_listener(self._on_end)
                    await self._read_repeatedly(connection, backoff)
            except DatabaseError as error:
                self._failed(str(error))
            except Exception as error:  # noqa: BLE001
                # No error may end this loop or disturb predictions.
                self._failed(reason_of(error))
            self._tried.set()
            await backoff.wait()

    async def _read_repeatedly(self, connection: Connection, backoff: Backoff) -> None:
        """Read the table, and again after each hint or period, until the connection fails."""
        while True:
            self._check_connected()
            self._hint.clear()
            # Listen before reading, so that a change after the read is notified.
            if self._database.notifies:
                await self._listen(connection)
            await self._read(connection)
            read_at = monotonic()
            backoff.reset()
            with suppress(TimeoutError):
                # Not a secret
                async with asyncio.timeout(self._period_s * random.uniform(0.9, 1.1)):  # noqa: S311
                    await self._hint.wait()
            self._check_connected()
            # Do not listen until the next read: each of 10,000 notifications would take time from
            # the event loop that predicts.
            if self._database.notifies:
                await connection.remove_listener(CHANNEL, self._hinted)
            await asyncio.sleep(read_at + LEAST_GAP_S - monotonic())

    def _check_connected(self) -> None:
        """Raise what happened, rather than what the next statement would say of it."""
        if self._ended:
            raise DatabaseError("PostgreSQL ended the connection")

    async def _listen(self, connection: Connection) -> None:
        """Ask for notifications. A standby, which can be read, has none until it is promoted."""
        try:
            await connection.add_listener(CHANNEL, self._hinted)
        except Exception as error:
            if getattr(error, "sqlstate", None) != _READ_ONLY:
                raise
            if not self._standby:
                logger.info(
                    "PostgreSQL at %s is a standby, which has no notifications: reading the "
                    "feature catalogue every %g s",
                    self._database.place,
                    self._period_s,
                )
            self._standby = True
        else:
            self._standby = False

    async def _read(self, connection: Connection) -> None:
        rows = await connection.fetch(_READ, [model.manifest.name for model in self._models])
        changed = self._catalog.take(rows, self._models)
        self._metrics.connected = True
        self._tried.set()
        if self._reason:
            logger.info("reading the feature catalogue again")
            self._reason = ""
        if changed:
            logger.info("the feature catalogue changed")
            await asyncio.to_thread(snapshot.save, self._file, self._catalog.snapshot())

    def _hinted(self, *_: object) -> None:
        self._hint.set()

    def _on_end(self, *_: object) -> None:
        self._ended = True
        self._hint.set()

    def _failed(self, reason: str) -> None:
        self._metrics.connected = False
        self._metrics.count("failed")
        if reason != self._reason and not self._database.away:  # `Database` logs that it is away
            logger.warning(
                "cannot read the feature catalogue; keeping the last version, and trying again: %s",
                reason,
            )
        self._reason = reason
