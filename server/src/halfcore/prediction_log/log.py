"""The prediction log: requests add to a list; tasks and one thread deliver it.

`_flush` encodes what was added and writes it to the database, or to the spool if the database does
not answer in time or the spool still has older rows. `_replay` empties the spool. The lock `_order`
guards the change from one way to the other: if a row overtook an older one of its writer, the mark
would move past the older row, and it would be lost.
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from random import random
from time import time
from typing import Any, Protocol, TypeVar
from uuid import UUID, uuid4

from halfcore.log import logger, reason_of
from halfcore.metrics.counters import PredictionLogMetrics
from halfcore.postgres.database import Backoff, Database, DatabaseError
from halfcore.prediction_log.blocks import Block, Challenged, Entry, Model, encode
from halfcore.prediction_log.reports import Reports
from halfcore.prediction_log.spool import Directory, Spool, SpoolFull, Unreadable
from halfcore.prediction_log.store import Store, Written

T = TypeVar("T")
PERIOD_S = 0.25
"""Seconds between deliveries: a killed process loses at most these, and a transaction's cost is
spread over many rows."""
PATIENCE_S = 0.5
"""Longest time of a write to the database, seconds; then its rows are also written to the disk."""
ADOPT_PERIOD_S = 30.0
"""Seconds between searches for the directories of workers that died."""
LAST_WRITE_S = 2.0
"""Longest time of the last write to the database, seconds; the rest goes to the disk."""
BLOCK_ROWS = 512
"""Rows encoded in one turn of the event loop: half a millisecond."""
ROW_OVERHEAD = 300
"""Bytes of memory of a row in addition to its JSON: the tuple, the headers of two `bytes`, three
numbers."""


class Answered(Protocol):
    """What the log reads of an answered request; see `models.answered.AnsweredRequest`."""

    @property
    def model(self) -> Model:
        """The model that answered."""

    @property
    def request_id(self) -> str | None:
        """The client's id, or the one made for it."""

    @property
    def body(self) -> bytes:
        """The request's JSON."""

    @property
    def rows(self) -> Any:
        """Its rows; `size` is their number."""

    @property
    def answer(self) -> bytes:
        """The answer's JSON."""

    @property
    def latency_s(self) -> float:
        """Seconds from the body's arrival to the answer."""

    @property
    def trace_id(self) -> str | None:
        """The id of the trace that the request belongs to, if its client sent one."""


class PredictionLog:
    """One worker's log.

    Args:
        database: makes the log's own database connection, on the running loop.
        spool: directory for rows while the database cannot be reached.
        spool_bytes: largest size of the spool.
        memory_bytes: most memory for rows that are not written yet; beyond it, requests are not
            logged.
        share: part of the requests that is logged, chosen at random.
        inputs: whether the requests' JSON is logged.
        metrics: counts rows, and reads the sizes of queue and spool.
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
        self._blocks: list[tuple[Block, int]] = []
        """Encoded but not written yet, each with its entries' bytes of memory."""
        self._next_row = 0
        self._counted = 0
        """Number of the first row of this process that is not counted as written."""
        self._held_bytes = 0
        self._held_rows = 0
        self._full = "memory"
        self._reports = Reports()
        self._direct = True
        self._order = asyncio.Lock()
        self._added = asyncio.Event()
        self._away = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        metrics.queued = lambda: (self._held_rows, self._held_bytes)
        metrics.spool = lambda: (self._spool.rows, self._spool.bytes)

    def add(self, request: Answered, challenged: Challenged | None = None) -> None:
        """Log an answered request, and what a shadow did with it. Never fails, never waits: the
        answer is sent after it."""
        if self._share < 1.0 and random() >= self._share:  # noqa: S311  a sample, not a secret
            return
        body, answer = request.body, request.answer
        size = len(body) + len(answer) + ROW_OVERHEAD
        if self._held_bytes + size > self._memory_bytes:
            self._metrics.drop(self._full)
            self._reports.drop()
            self._added.set()  # what is in memory is tried again: the disk may have room by now
            return
        self._held_bytes += size
        self._held_rows += 1
        if not self._entries:
            self._added.set()
        self._entries.append(
            Entry(
                time(),
                request.model,
                request.request_id,
                body,
                request.rows.size,
                answer,
                request.latency_s,
                challenged,
                request.trace_id,
            )
        )

    def start(self) -> None:
        """Start to deliver, on the running loop; connects only when there is something to write."""
        self._database = self._make_database()
        self._store = Store(self._database)
        self._tasks = [
            asyncio.create_task(task()) for task in (self._flush, self._replay, self._adopt)
        ]
        for task in self._tasks:
            task.add_done_callback(_log_failure)

    async def close(self) -> None:
        """Deliver the rest: to the database if it answers within `LAST_WRITE_S`, otherwise to the
        disk, where another process finds it."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._encode_entries()
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
        """Deliver what was added, every `PERIOD_S` seconds while there is something."""
        while True:
            await self._added.wait()
            await asyncio.sleep(PERIOD_S)
            async with self._order:
                await self._encode_entries()
                await self._deliver(patience_s=PATIENCE_S)
            self._reports.dropped()

    async def _encode_entries(self) -> None:
        """Turn the entries into blocks, a few at a time, so that the event loop can answer
        requests in between."""
        left = len(self._entries)  # entries added meanwhile are left for the next time
        while left > 0:
            part = self._entries[: min(left, BLOCK_ROWS)]
            del self._entries[: len(part)]
            left -= len(part)
            block = encode(
                part, writer=self._writer.bytes, first=self._next_row, inputs=self._inputs
            )
            self._next_row = block.end
            held = sum([len(entry.body) + len(entry.answer) + ROW_OVERHEAD for entry in part])
            self._blocks.append((block, held))
            await asyncio.sleep(0)
        if not self._entries:
            self._added.clear()

    async def _deliver(self, *, patience_s: float) -> None:
        """Write the blocks to the database, or to the disk; if both fail they stay in memory."""
        blocks = [block for block, _ in self._blocks]
        if not blocks:
            return
        if self._direct and not await self._write(blocks, patience_s=patience_s):
            self._direct = False
            self._away.set()
        if not self._direct:
            try:
                lost = await self._in_thread(lambda: self._spool.append(blocks))
            except OSError as error:
                self._log_full(error)
                return
            self._log_removed(lost)
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
            self._reports.failed_write(why)
            return False
        self._count(self._writer, blocks, written)
        return True

    def _count(self, writer: UUID, blocks: Sequence[Block], written: Written) -> None:
        """Count a write that succeeded. Of this process's own rows those count, too, that were
        there already, once: the write that put them there was not acknowledged."""
        rows = written.rows
        if blocks and writer == self._writer:
            sent = sum(block.rows for block in blocks if block.first >= self._counted)
            rows = max(rows, sent - written.refused)
            self._counted = max(self._counted, blocks[-1].end)
        self._metrics.wrote(rows, written.refused)
        self._reports.refused(written.refused, written.why)

    def _log_full(self, error: OSError) -> None:
        full = "spool_full" if isinstance(error, SpoolFull) else "disk_error"
        if self._full != full:
            self._reports.full(error)
        self._full = full

    def _log_removed(self, rows: int) -> None:
        if rows:
            self._metrics.drop("disk_error", rows)
            self._reports.removed(rows)

    async def _replay(self) -> None:
        """Empty the spool when the database works again; then write rows directly again."""
        backoff = Backoff()
        while True:
            await self._away.wait()
            try:
                if not await self._replay_next():
                    await self._store.ping()
                    await self._write_directly_again()
                backoff.reset()
            except (DatabaseError, OSError) as error:
                # An outage is reported by the database itself
                if isinstance(error, OSError) or not self._database.away:
                    self._reports.waiting(reason_of(error))
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
            self._log_removed(await self._in_thread(lambda: directory.set_aside(segment)))
            return
        if contents.torn_bytes:
            logger.warning(
                "segment %s of the prediction log ends with %d torn bytes",
                segment.name,
                contents.torn_bytes,
            )
        written = await self._store.write(directory.writer, contents.blocks)
        self._count(directory.writer, contents.blocks, written)
        self._metrics.torn += bool(contents.torn_bytes)
        rows = sum(block.rows for block in contents.blocks)
        try:
            await self._in_thread(lambda: directory.remove(segment, rows))
        except OSError as error:
            self._reports.undeletable(error)

    async def _write_directly_again(self) -> None:
        async with self._order:  # nothing is appended to the spool meanwhile
            if self._spool.empty:
                self._direct = True
                self._away.clear()
                self._reports.waits_no_more()
                if self._blocks:
                    self._added.set()

    async def _adopt(self) -> None:
        """Take over the spool directories of workers that died, every `ADOPT_PERIOD_S` seconds."""
        while True:
            async with self._order:
                try:
                    failed = await self._in_thread(self._spool.adopt)
                except OSError as error:
                    failed = [error]
                if not self._spool.empty:
                    self._direct = False
                    self._away.set()
            for problem in failed:
                self._reports.unreadable(problem)
            await asyncio.sleep(ADOPT_PERIOD_S)

    async def _in_thread(self, function: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._files, function)


def _log_failure(task: "asyncio.Task[None]") -> None:
    """Log that a task ended although it was not cancelled; predictions continue."""
    if not task.cancelled() and (error := task.exception()) is not None:
        logger.error("the prediction log has stopped", exc_info=error)
