"""The prediction log under random schedules: two workers, a database that fails or does not answer
in each step of a transaction, disks that fail, and perhaps a worker that is killed."""

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock
from uuid import UUID

from halfcore.metrics.counters import PredictionLogMetrics
from halfcore.postgres.errors import DatabaseError
from halfcore.prediction_log import log as module
from halfcore.prediction_log.blocks import HEADER, TRAILER, Block
from halfcore.prediction_log.log import PredictionLog
from support.predictions import IRIS, rows_of
from support.simulated.loop import SeededLoop, Wrong

_PAUSES_S = (0.0, 0.0, 0.001, 0.02, 0.3, 1.5)
_MEMORY = Path("/dev/shm")  # noqa: S108  only faster


class Table:
    """The table and its marks, as PostgreSQL keeps them."""

    def __init__(self, loop: SeededLoop) -> None:
        self.loop = loop
        self.marks: dict[UUID, int] = {}
        self.rows: list[tuple[UUID, int]] = []
        self.locks: dict[UUID, asyncio.Lock] = {}
        self.answers = True

    async def step(self) -> None:
        """A statement takes its time, and fails in outages and at random."""
        await asyncio.sleep(self.loop.dice.choice(_PAUSES_S))
        if not self.answers or self.loop.dice.random() < 0.02:
            raise DatabaseError("planted")


class Connection:
    """What the log uses of a connection."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._rows: list[tuple[UUID, int]] = []
        self._mark: tuple[UUID, int] | None = None
        self._lock: asyncio.Lock | None = None

    async def execute(self, statement: str, *arguments: Any) -> None:
        """A statement without a result."""
        if statement == "COMMIT":
            await self._commit()
            return
        await self._table.step()
        if statement.startswith("UPDATE"):
            self._mark = (arguments[0], arguments[1])

    async def fetchval(self, _statement: str, writer: UUID) -> int:
        """Lock a writer's mark, and read it."""
        await self._table.step()
        lock = self._table.locks.setdefault(writer, asyncio.Lock())
        await lock.acquire()
        self._lock = lock
        return self._table.marks.get(writer, 0)

    async def copy_to_table(self, _name: str, *, source: Any, **_how: Any) -> None:
        """A binary COPY; its rows are there with the commit."""
        data = b"".join([part async for part in source])
        await self._table.step()
        payload = data.removeprefix(HEADER).removesuffix(TRAILER)
        for row in rows_of(Block(0, 0, 0, 0, payload)):
            self._rows.append((UUID(bytes=row["writer"]), int.from_bytes(row["row_number"])))

    async def _commit(self) -> None:
        """It may fail before and after it took effect, and take effect after the client left."""
        try:
            await self._table.step()
        except asyncio.CancelledError:
            if self._table.loop.dice.random() < 0.5:
                lock, self._lock = self._lock, None
                self._table.loop.call_later(0.1, self._take_effect, lock)
            raise
        self._take_effect(self._lock)
        self._lock = None
        await self._table.step()

    def _take_effect(self, lock: asyncio.Lock | None) -> None:
        self._table.rows += self._rows
        if self._mark:
            self._table.marks[self._mark[0]] = self._mark[1]
        if lock:
            lock.release()

    def end(self) -> None:
        """Roll back what is not committed."""
        if self._lock:
            self._lock.release()
            self._lock = None


class FakeDatabase:
    """Hands out connections while it can be reached."""

    away = False
    """Connecting never fails; statements do."""

    def __init__(self, table: Table) -> None:
        self._table = table

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A connection; what is open at its end is rolled back."""
        await self._table.step()
        connection = Connection(self._table)
        try:
            yield connection
        finally:
            connection.end()

    async def close(self) -> None:
        """Nothing is open."""


class Worker:
    """A worker's log and how much was added to it."""

    def __init__(self, loop: SeededLoop, table: Table, spool: Path) -> None:
        self._loop = loop
        self.writer = UUID(int=loop.dice.getrandbits(128), version=4)
        self.metrics = PredictionLogMetrics()
        with mock.patch.object(module, "uuid4", return_value=self.writer):
            self.log = PredictionLog(
                lambda: FakeDatabase(table),  # type: ignore[arg-type,return-value]
                spool=spool,
                spool_bytes=loop.dice.choice((2_000, 1 << 20)),
                memory_bytes=1 << 20,
                share=1.0,
                inputs=True,
                metrics=self.metrics,
            )
        self.added = 0
        self.certain: int | None = None
        """Of a killed worker: rows that were out of its memory."""
        self.log.start()

    async def serve(self) -> None:
        """Log some requests."""
        for _ in range(self._loop.dice.randrange(3, 10)):
            await asyncio.sleep(self._loop.dice.choice(_PAUSES_S))
            for _ in range(self._loop.dice.randrange(1, 4)):
                self.log.add(_request(self.added))
                self.added += 1

    async def kill(self) -> None:
        """End it without a word: what is in memory is lost, and the kernel frees its locks."""
        for task in self.log._tasks:
            task.cancel()
        await asyncio.gather(*self.log._tasks, return_exceptions=True)
        self.certain = self.added - self.log._held_rows
        for directory in self.log._spool._directories():
            directory.seal()
            os.close(directory._lock)

    def check(self, table: Table) -> None:
        """Each row is in the table once, in order; of a killed worker those that it had handed on.

        Raises:
            Wrong: one is lost, doubled or out of order.
        """
        found = [number for writer, number in table.rows if writer == self.writer]
        if found != list(range(len(found))):
            raise Wrong(f"rows of a writer, doubled or out of order: {found}")
        said_lost = sum(self.metrics.dropped.values())  # neither database nor disk took them
        least = self.added - said_lost if self.certain is None else self.certain
        if not least <= len(found) <= self.added:
            raise Wrong(f"{self.added} rows were added, {least} must be there, {len(found)} are")


def _request(number: int) -> Any:
    return SimpleNamespace(
        model=IRIS,
        request_id=None,
        body=b'{"features":[%d]}' % number,
        rows=SimpleNamespace(size=1),
        answer=b"{}",
        latency_s=0.001,
        trace_id=None,
    )


async def _outages(loop: SeededLoop, table: Table) -> None:
    for _ in range(loop.dice.randrange(3)):
        await asyncio.sleep(loop.dice.choice(_PAUSES_S))
        table.answers = False
        await asyncio.sleep(loop.dice.choice((0.2, 2.0, 40.0)))
        table.answers = True


@contextmanager
def _disk(loop: SeededLoop) -> Iterator[Path]:
    """A folder on a disk that sometimes fails; it is never waited for."""

    def sync(_handle: int) -> None:
        if loop.dice.random() < 0.03:
            raise OSError(5, "planted")

    folder = Path(tempfile.mkdtemp(dir=_MEMORY if _MEMORY.is_dir() else None))
    try:
        with mock.patch.object(os, "fdatasync", sync), mock.patch.object(os, "fsync", sync):
            yield folder
    finally:
        shutil.rmtree(folder)


async def scenario(loop: SeededLoop) -> None:
    """Two workers log, one may be killed; another one delivers what they left.

    Raises:
        Wrong: a row is lost, doubled or out of order.
    """
    table = Table(loop)
    with _disk(loop) as spool:
        workers = [Worker(loop, table, spool) for _ in range(2)]
        outages = loop.create_task(_outages(loop, table))
        await asyncio.gather(*[worker.serve() for worker in workers])
        if loop.dice.random() < 0.4:
            await asyncio.sleep(loop.dice.choice(_PAUSES_S))
            await workers[0].kill()
        await outages
        for worker in workers:
            if worker.certain is None:
                await worker.log.close()
        await _deliver_the_rest(loop, table, spool)
        for worker in workers:
            worker.check(table)


async def _deliver_the_rest(loop: SeededLoop, table: Table, spool: Path) -> None:
    last = Worker(loop, table, spool)
    async with asyncio.timeout(3600):
        # Virtual time
        while _segments(spool) or not last.log._direct:  # noqa: ASYNC110
            await asyncio.sleep(10.0)
    await last.log.close()
    if aside := _segments(spool, ".unreadable"):
        raise Wrong(f"segments were set aside: {[path.name for path in aside]}")


def _segments(spool: Path, suffix: str = ".segment") -> list[Path]:
    return list(spool.glob(f"*/*{suffix}"))
