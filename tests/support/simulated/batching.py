"""The batcher under random schedules: clients come and leave, runs fail, and batches run on the
loop and in the thread."""

import asyncio
from array import array
from collections.abc import Sequence
from concurrent.futures import Executor
from contextlib import suppress
from typing import Any

from halfcore.pipeline.batcher import Batcher
from halfcore.pipeline.jobs import Overloaded, QueueTimeout, RunError
from support.simulated.loop import SeededLoop, Wrong

MAX_BATCH, MAX_QUEUE, TIMEOUT_S, BUDGET_S = 4, 24, 2.0, 0.001
_PAUSES_S = (0.0, 0.0, 0.0, 0.001, 0.05, 0.7)
_CLIENTS = 12


def answer(row: int) -> int:
    """What the engine says of a row."""
    return row * 2654435761 % 2**32


class Engine:
    """An echo model that is sometimes slow or fails, and knows who still waits."""

    def __init__(self, loop: SeededLoop, executor: Executor) -> None:
        self._loop, self._executor = loop, executor
        self.left: set[int] = set()
        """Rows of clients that have left."""
        self.answered: set[int] = set()
        self.seen: set[int] = set()
        self.wrong: list[str] = []
        self.row_seconds = 0.0
        self.working = False

    def run(self, payload: bytes, rows: int) -> Sequence[int]:
        """Answer rows, or fail."""
        ids = array("I", payload)
        self._expect(self.working or not self._loop.is_busy(self._executor), "two runs at a time")
        self._expect(len(ids) == rows <= MAX_BATCH, f"a run of {rows} rows")
        self.take(ids)
        self._expect(not self.answered.intersection(ids), "a row was answered twice")
        self._loop.now += rows * self.row_seconds
        if self._loop.dice.random() < 0.1:
            raise ValueError("planted")
        if self._loop.dice.random() < 0.03:
            return [0] * (rows + 1)
        self.answered.update(ids)
        return [answer(row) for row in ids]

    def take(self, ids: "array[int]") -> None:
        """Rows have left the queue for a run."""
        new = set(ids) - self.seen
        self._expect(not new & self.left, "rows of a client that left were run")
        self.seen |= new

    def _expect(self, held: bool, what: str) -> None:
        if not held:
            self.wrong.append(what)

    def queued(self, seconds: float) -> None:
        """A request was taken."""
        self._expect(seconds >= 0, "a negative wait")

    def ran(self, rows: int, seconds: float, bisections: int) -> None:
        """A batch has ended."""


class Thread(Executor):
    """The inference thread; the loop runs its work."""

    def __init__(self) -> None:
        self.engine: Engine


async def scenario(loop: SeededLoop) -> None:
    """Twelve clients with up to four requests each; then the queue must be empty.

    Raises:
        Wrong: an answer was lost, doubled or somebody else's, or rows ran that nobody waited for.
    """
    thread = Thread()
    engine = Engine(loop, thread)
    batcher: Batcher[int] = Batcher(
        engine.run,
        executor=thread,
        observer=engine,
        max_batch_size=MAX_BATCH,
        max_queue_size=MAX_QUEUE,
        max_queue_delay_s=loop.dice.choice((0.0, 0.0, 0.01)),
        solo_after_s=loop.dice.choice((0.001, float("inf"))),
        queue_timeout_s=TIMEOUT_S,
        inline_budget_s=BUDGET_S,
        clock=loop.time,
        cpu_clock=loop.time,
    )
    _mark_thread(batcher, engine)
    clients = [loop.create_task(_client(loop, batcher, engine, each)) for each in range(_CLIENTS)]
    await asyncio.gather(*clients)
    await batcher.drain()
    if batcher.queued_rows:
        engine.wrong.append(f"{batcher.queued_rows} rows are counted as waiting, of none")
    if engine.wrong:
        raise Wrong(engine.wrong[0])


def _mark_thread(batcher: Batcher[int], engine: Engine) -> None:
    """Let the engine know which runs are the thread's own."""
    timed = batcher._timed
    submit = batcher._loop.run_in_executor

    def in_thread(batch: Any) -> Any:
        engine.working = True
        try:
            return timed(batch)
        finally:
            engine.working = False

    def run_in_executor(executor: Any, _function: Any, batch: Any) -> Any:
        for part in batch:  # taken: a client that leaves now is too late for this batch
            engine.take(array("I", part.payload))
        return submit(executor, in_thread, batch)

    batcher._loop.run_in_executor = run_in_executor  # type: ignore[method-assign,assignment]


async def _client(loop: SeededLoop, batcher: Batcher[int], engine: Engine, number: int) -> None:
    for turn in range(loop.dice.randrange(1, 5)):
        await asyncio.sleep(loop.dice.choice(_PAUSES_S))
        engine.row_seconds = loop.dice.choice((0.0, 0.0001, 0.01))
        first = number * 1000 + turn * 100
        ids = range(first, first + loop.dice.choice((1, 1, 2, 3, MAX_BATCH, 3 * MAX_BATCH)))
        request = loop.create_task(_request(batcher, engine, ids))
        if loop.dice.random() < 0.3:
            await asyncio.sleep(loop.dice.choice(_PAUSES_S))
            request.cancel()
        with suppress(asyncio.CancelledError):
            await request


async def _request(batcher: Batcher[int], engine: Engine, ids: range) -> None:
    try:
        results = await batcher.infer(array("I", ids).tobytes(), len(ids))
    except asyncio.CancelledError:
        engine.left.update(ids)
        raise
    except (Overloaded, QueueTimeout, RunError):
        engine.left.update(ids)
        return
    if list(results) != [answer(row) for row in ids]:
        engine.wrong.append(f"rows {ids} got {results}")
