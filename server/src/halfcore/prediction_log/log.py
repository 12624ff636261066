"""The prediction log: a list on the requests' side, two tasks and a thread behind it.

`_flush` lays out what was added and delivers it: to the database, or to the spool if the database
did not answer in time or older rows still wait there. `_replay` empties the spool. `_order` makes
the turn from one way to the other: a row that overtook an older one of its writer would move the
mark past it.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from random import random
from time import time
from typing import TypeVar
from uuid import uuid4

from halfcore.log import logger, reason_of
from halfcore.metrics.counters import PredictionLogMetrics
from halfcore.postgres.database import Backoff, Database, DatabaseError
from halfcore.prediction_log.blocks import Block, Challenged, Entry, Model, Sized, encode
from halfcore.prediction_log.spool import Directory, Spool, SpoolFull, Unreadable
from halfcore.prediction_log.store import Store

T = TypeVar("T")
PERIOD_S = 0.25
"""Seconds between deliveries: what a killed process loses, and rare enough that a transaction's
cost is spread over many rows."""
PATIENCE_S = 0.5
"""Seconds that a delivery may take before its rows go to the disk as well."""
ADOPT_PERIOD_S = 30.0
"""Seconds between looks for directories that a worker which died has left."""
LAST_WRITE_S = 2.0
"""Seconds that the database has at the end, before what is left goes to the disk."""
BLOCK_ROWS = 512
"""Rows laid out at one go: half a millisecond of the event loop."""
ROW_OVERHEAD = 300
"""Bytes of memory of a row beside its JSON: the tuple, two `bytes` and their heads, three
numbers."""


class PredictionLog:
    """One worker's log.

    Args:
        database: makes the log's own, on the running loop.
        spool: directory for rows while the database is away.
        spool_bytes: its largest size.
        memory_bytes: most memory for rows on their way; what comes beyond it is not logged.
        share: part of the requests that is logged, chosen at random.
        inputs: whether the requests' JSON is logged.
        metrics: counts.
    """

    def __init__(
        self,
        database: Callable[[], Database],
        *,
        spool: Path,
        spool_bytes: int,
        memory_bytes: int,
        share: float,
        inputs: bool,
        metrics: PredictionLogMetrics,
    ) -> None:
        self._make_database = database
        self._writer = uuid4()
        self._spool = Spool(spool, writer=self._writer, most_bytes=spool_bytes)
        self._memory_bytes = memory_bytes
        self._share = share
        self._inputs = inputs
        self._metrics = metrics
        self._files = ThreadPoolExecutor(1, thread_name_prefix="prediction-log")
        self._entries: list[Entry] = []
        self._blocks: list[
            tuple[Block, int]
        ] = []  # laid out but delivered nowhere, with the memory they are reckoned at
        self._next_row = 0
        self._held_bytes = 0
        self._held_rows = 0
        self._full = "memory"
        self._direct = True
        self._order = asyncio.Lock()
        self._added = asyncio.Event()
        self._away = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        metrics.queued = lambda: (self._held_rows, self._held_bytes)
        metrics.spool = lambda: (self._spool.rows, self._spool.bytes)

    def add(
        self,
        model: Model,
        request_id: str | None,
        body: bytes,
        rows: Sized,
        results: object,  # noqa: ARG002  the answer tells them; a challenger compares them
        answer: bytes,
        latency_s: float,
        challenged: Challenged | None = None,
    ) -> None:
        """Log an answered request. Never fails, never waits: it is on the request's path.

        Args:
            model: what answered.
            request_id: the client's, if it sent one.
            body: the request's JSON.
            rows: its rows, decoded.
            results: the model's, one per row.
            answer: the answer's JSON.
            latency_s: seconds from the body's arrival to the answer.
            challenged: what a shadowing challenger made of it.
        """
        if self._share < 1.0 and random() >= self._share:  # noqa: S311  a sample, not a secret
            return
        size = len(body) + len(answer) + ROW_OVERHEAD
        if self._held_bytes + size > self._memory_bytes:
            self._metrics.drop(self._full)
            return
        self._held_bytes += size
        self._held_rows += 1
        if not self._entries:
            self._added.set()
        self._entries.append(
            (time(), model, request_id, body, rows.size, answer, latency_s, challenged)
        )

    def start(self) -> None:
        """Begin to deliver, on the running loop; connects to nothing before there is something to
        write."""
        self._database = self._make_database()
        self._store = Store(self._database)
        self._tasks = [
            asyncio.create_task(task()) for task in (self._flush, self._replay, self._adopt)
        ]
        for task in self._tasks:
            task.add_done_callback(_say_failure)

    async def close(self) -> None:
        """Deliver the rest: to the database if it answers within `LAST_WRITE_S`, else to the disk,
        from where a successor takes it."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._lay_out()
        if not self._direct:
            with suppress(DatabaseError, OSError, TimeoutError):
                async with asyncio.timeout(LAST_WRITE_S):
                    while await self._replay_next():
                        pass
                    self._direct = True
        await self._deliver(patience_s=LAST_WRITE_S)
        if self._blocks:
            self._metrics.drop("shutdown", self._held_rows)
            logger.error(
                "lost %d logged predictions: cannot write them to PostgreSQL or to the disk; "
                "check both",
                self._held_rows,
            )
        await self._in_thread(self._spool.close)
        self._files.shutdown()
        await self._database.close()

    async def _flush(self) -> None:
        """Deliver what was added, every `PERIOD_S` while something is."""
        while True:
            await self._added.wait()
            await asyncio.sleep(PERIOD_S)
            async with self._order:
                await self._lay_out()
                await self._deliver(patience_s=PATIENCE_S)

    async def _lay_out(self) -> None:
        """Turn the entries into blocks, a few at a time, for the event loop has requests to
        answer."""
        left = len(self._entries)  # what comes meanwhile waits for the next time
        while left > 0:
            part = self._entries[: min(left, BLOCK_ROWS)]
            del self._entries[: len(part)]
            left -= len(part)
            block = encode(
                part, writer=self._writer.bytes, first=self._next_row, inputs=self._inputs
            )
            self._next_row = block.end
            held = sum([len(entry[3]) + len(entry[5]) for entry in part]) + ROW_OVERHEAD * len(part)
            self._blocks.append((block, held))
            await asyncio.sleep(0)
        if not self._entries:
            self._added.clear()

    async def _deliver(self, *, patience_s: float) -> None:
        """Bring the blocks to the database, or else to the disk; those that neither takes stay."""
        blocks = [block for block, _ in self._blocks]
        if not blocks:
            return
        if self._direct and not await self._write(blocks, patience_s=patience_s):
            self._direct = False
            self._away.set()
        if not self._direct:
            try:
                await self._in_thread(lambda: self._spool.append(blocks))
            except OSError as error:
                self._say_full(error)
                return
            self._metrics.spooled += sum(block.rows for block in blocks)
        self._full = "memory"
        self._held_bytes -= sum(held for _, held in self._blocks)
        self._held_rows -= sum(block.rows for block in blocks)
        self._blocks.clear()

    async def _write(self, blocks: list[Block], *, patience_s: float) -> bool:
        try:
            async with asyncio.timeout(patience_s):
                written = await self._store.write(self._writer, blocks)
        except (DatabaseError, TimeoutError) as error:
            why = (
                f"no answer within {patience_s:g} s"
                if isinstance(error, TimeoutError)
                else reason_of(error)
            )
            logger.warning(
                "cannot write predictions to PostgreSQL; writing them to the disk until it works "
                "again: %s",
                why,
            )
            return False
        self._metrics.wrote(written.rows, written.refused)
        return True

    def _say_full(self, error: OSError) -> None:
        full = "spool_full" if isinstance(error, SpoolFull) else "disk_error"
        if self._full != full:
            logger.error(
                "cannot write predictions to the disk either; keeping them in memory: %s",
                reason_of(error),
            )
        self._full = full

    async def _replay(self) -> None:
        """Empty the spool whenever the database lets it; then let rows take the short way again."""
        backoff = Backoff()
        while True:
            await self._away.wait()
            try:
                if not await self._replay_next():
                    await self._store.ping()
                    await self._take_the_short_way()
                backoff.reset()
            except (DatabaseError, OSError) as error:
                logger.debug(
                    "the predictions on the disk cannot be written to PostgreSQL yet: %s",
                    reason_of(error),
                )
                await backoff.wait()

    async def _replay_next(self) -> bool:
        """Write the oldest segment; False if there is none."""
        oldest = await self._in_thread(self._spool.oldest)
        if oldest is None:
            return False
        await self._replay_segment(*oldest)
        return True

    async def _replay_segment(self, directory: Directory, segment: Path) -> None:
        try:
            contents = await self._in_thread(lambda: directory.read(segment))
        except Unreadable as error:
            logger.error(
                "cannot read segment %s of the prediction log; it is renamed and skipped: %s",
                segment.name,
                reason_of(error),
            )
            self._metrics.torn += 1
            await self._in_thread(lambda: directory.set_aside(segment))
            return
        if contents.torn_bytes:
            logger.warning(
                "segment %s of the prediction log ends with %d torn bytes",
                segment.name,
                contents.torn_bytes,
            )
        written = await self._store.write(directory.writer, contents.blocks)
        self._metrics.wrote(written.rows, written.refused)
        self._metrics.torn += bool(contents.torn_bytes)
        rows = sum(block.rows for block in contents.blocks)
        await self._in_thread(lambda: directory.remove(segment, rows))

    async def _take_the_short_way(self) -> None:
        async with self._order:  # nothing is being appended
            if self._spool.empty:
                self._direct = True
                self._away.clear()
                if self._blocks:
                    self._added.set()

    async def _adopt(self) -> None:
        """Look for what dead workers left, now and then."""
        while True:
            with suppress(OSError):
                async with self._order:
                    await self._in_thread(self._spool.adopt)
                    if not self._spool.empty:
                        self._direct = False
                        self._away.set()
            await asyncio.sleep(ADOPT_PERIOD_S)

    async def _in_thread(self, function: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._files, function)


def _say_failure(task: "asyncio.Task[None]") -> None:
    """A task that ends before it is told to is a fault of ours; predictions go on."""
    if not task.cancelled() and (error := task.exception()) is not None:
        logger.error("the prediction log has stopped", exc_info=error)
