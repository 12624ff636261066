"""Reads the catalogue's table: when a notification says that it changed, and every so often without
one.

A notification is a hint. A connection that died silently brings none, so the table is also read
every period; that read is bounded in time, and so finds out that the connection, or PostgreSQL,
hangs. Behind a pooler of transactions no notification comes, and only the period counts.
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
"""Seconds between two reads: a storm of notifications costs four reads a second."""
_READ = """
SELECT model, column_name, position, kind, default_value, minimum, maximum, categories
FROM halfcore.feature_catalogue WHERE enabled AND model = ANY($1::text[])
"""


class Follower:
    """Keeps a `Catalog` up to date with the table.

    Args:
        database: where the table is; may be away.
        catalog: takes what was read.
        models: those whose rows are read.
        metrics: counts the reads that failed.
        hint: asks for a read at once.
        period_s: seconds between reads that no notification asks for; each is up to a tenth longer
            or shorter.
        file: takes the catalogue whenever it changed.
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
        self._task: asyncio.Task[None] | None = None

    async def start(self, *, patience_s: float) -> None:
        """Begin; returns when the table was read, the first attempt failed, or patience is over."""
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
        """End, waiting for no answer."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        backoff = Backoff()
        while True:
            try:
                async with self._database.connection() as connection:
                    connection.add_termination_listener(self._hinted)
                    await self._read_on(connection, backoff)
            except DatabaseError as error:
                self._failed(str(error))
            except Exception as error:  # noqa: BLE001
                # whatever it is, predictions go on, and so does this
                self._failed(reason_of(error))
            self._tried.set()
            await backoff.wait()

    async def _read_on(self, connection: Connection, backoff: Backoff) -> None:
        """Read the table, and again after each hint or period, until the connection fails."""
        while True:
            self._hint.clear()
            # Heard before it is read: a change that the read does not see is told of.
            if self._database.notifies:
                await connection.add_listener(CHANNEL, self._hinted)
            await self._read(connection)
            read_at = monotonic()
            backoff.reset()
            with suppress(TimeoutError):
                # Not a secret
                async with asyncio.timeout(self._period_s * random.uniform(0.9, 1.1)):  # noqa: S311
                    await self._hint.wait()
            # Deaf until the next read: each of 10,000 notifications would cost the loop that
            # predicts.
            if self._database.notifies:
                await connection.remove_listener(CHANNEL, self._hinted)
            await asyncio.sleep(read_at + LEAST_GAP_S - monotonic())

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

    def _failed(self, reason: str) -> None:
        self._metrics.connected = False
        self._metrics.count("failed")
        if reason != self._reason and not self._database.away:  # of that the database tells itself
            logger.warning(
                "cannot read the feature catalogue; keeping the last version, and trying again: %s",
                reason,
            )
        self._reason = reason
