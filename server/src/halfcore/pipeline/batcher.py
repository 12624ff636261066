"""Tick batching: rows that arrive in the same turn of the event loop share one run of the model.

Theory of operation. `submit` appends a job to a deque and, if none is scheduled, schedules one
flush with `call_soon`. The loop runs it after every callback that was ready in this turn, so under
load a batch holds what all readable sockets brought. A row that comes long after the one before it
is run within `submit`: it has no company to wait for. Not so after a run that several shared, whose
clients come again, nor for the time that the model ran, in which nobody could come: a dear model's
rows would otherwise run alone one after another. A flush takes rows (`_take`, the only place that
decides), runs them, and resolves the jobs' futures. A batch that is predicted to cost more than
`inline_budget_s` goes to the one inference thread, and what arrives meanwhile forms the next batch.

Large requests are cut: they wait in a deque of their own and get every fifth batch while small ones
wait, so they delay them by one batch, not by their length. A run that fails is repeated in halves
until the failing request stands alone; only that request fails.

Everything but the thread's `_run_isolated` happens on the event loop; there is no lock, no timer
when idle, and no task per request. Nothing here knows HTTP, JSON or ONNX Runtime: rows are bytes,
and `run` is a callable. Who waits for a job is told as a future is; the hot lane hands in an object
that answers its client then and there, which saves a future and a turn of the loop per request.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from math import inf
from time import perf_counter, thread_time
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

R = TypeVar("R")
SMALL_BATCHES_PER_BULK = 4


class Overloaded(Exception):
    """The queue is full, in rows or in time; nothing was queued."""


class QueueTimeout(Exception):
    """A request waited longer than `queue_timeout_s` for its first batch, and was never run."""


class RunError(Exception):
    """The model failed on this request's rows, alone in their batch."""


class Observer(Protocol):
    """Told of what the batcher does; called on the event loop."""

    def queued(self, seconds: float) -> None:
        """A request's first row left the queue after this time."""

    def ran(self, rows: int, seconds: float, bisections: int) -> None:
        """A batch of so many rows took so long, and was halved so often because a request in it
        failed."""


class Waiter(Protocol):
    """Who waits for a job: an `asyncio.Future`, or whatever takes its outcome as one does. Its
    methods must not raise."""

    def done(self) -> bool:
        """Whether it waits no more: its job is not run then."""

    def cancel(self) -> object:
        """Nothing will come."""

    def set_result(self, results: Sequence[Any], /) -> None:
        """One result per row, in order."""

    def set_exception(self, error: Exception, /) -> None:
        """`QueueTimeout` or `RunError`."""


class Job(Generic[R]):
    """One request's rows on their way: how many are taken, what has come back, and how long it
    took.

    Args:
        payload: `rows` rows of equal length.
        rows: at least 1.
        future: is told the results, one per row in order.

    Attributes:
        waited_s: seconds until its first row left the queue.
        ran_s: seconds of the batches that its rows rode in.
    """

    __slots__ = ("future", "payload", "queued_at", "ran_s", "results", "rows", "taken", "waited_s")

    def __init__(self, payload: bytes, rows: int, future: Waiter) -> None:
        self.payload = payload
        self.rows = rows
        self.future: Any = future
        self.queued_at = 0.0
        self.taken = 0
        self.waited_s = 0.0
        self.ran_s = 0.0
        self.results: list[R] | None = None


class Part(Generic[R]):
    """The rows of one job that ride in one batch."""

    __slots__ = ("failure", "job", "payload", "results", "rows")

    def __init__(self, job: Job[R], payload: bytes, rows: int) -> None:
        self.job = job
        self.payload = payload
        self.rows = rows
        self.results: Sequence[R] | None = None
        self.failure: Exception | None = None


class Ran(NamedTuple):
    """A run that is over."""

    seconds: float
    cpu_seconds: float
    bisections: int
    """How often the batch was halved."""


_NEVER_RAN = Ran(0.0, 0.0, 0)


class Batcher(Generic[R]):
    """One model version's queue.

    Args:
        run: turns the joined bytes of n rows into n results, in order; may raise. Called on the
            event loop or in `executor`, never twice at a time.
        executor: a pool of one thread for batches that are too dear for the event loop.
        max_batch_size: most rows in one run.
        max_queue_size: most rows that wait; beyond it `submit` raises `Overloaded`. A larger
            request is never accepted.
        max_queue_delay_s: time a row waits for company, seconds; 0 is one turn of the loop.
        solo_after_s: a row that comes later than this after the one before is run at once, see
            above; infinity: every row waits for the turn's end.
        queue_timeout_s: a request that waited longer is not run any more, and none is accepted that
            is predicted to.
        inline_budget_s: batches predicted to take longer go to the executor.
        observer: told of waits, runs and bisections.
        cost: what is known of the model's cost already, from its warm-up.
        clock: seconds; not the loop's time, which uvloop advances once per turn.
        cpu_clock: seconds of CPU time of the thread that asks, by which runs are predicted: a run
            that a spent quota or the interpreter's lock held up was not dear, and need not leave
            the event loop the next time.
    """

    def __init__(
        self,
        run: Callable[[bytes, int], Sequence[R]],
        *,
        executor: Executor,
        observer: Observer,
        max_batch_size: int = 128,
        max_queue_size: int = 20_000,
        max_queue_delay_s: float = 0.0,
        solo_after_s: float = inf,
        queue_timeout_s: float = 5.0,
        inline_budget_s: float = 0.001,
        cost: "Cost | None" = None,
        clock: Callable[[], float] = perf_counter,
        cpu_clock: Callable[[], float] = thread_time,
    ) -> None:
        self._run = run
        self._executor = executor
        self._observer = observer
        self._max_batch_size = max_batch_size
        self._max_queue_size = max_queue_size
        self._max_queue_delay_s = max_queue_delay_s
        self._solo_after_s = solo_after_s
        self._queue_timeout_s = queue_timeout_s
        self._inline_budget_s = inline_budget_s
        self._loop = asyncio.get_running_loop()
        self._small: deque[Job[R]] = deque()
        self._bulk: deque[Job[R]] = deque()
        self._queued_rows = 0
        self._small_in_a_row = 0
        self._scheduled: asyncio.Handle | None = None
        self._running = False
        self._idle: asyncio.Future[None] | None = None
        self._cost = cost or Cost()
        self._clock = clock
        self._cpu_clock = cpu_clock
        self._last_submit = -inf
        self._had_company = False

    @property
    def queued_rows(self) -> int:
        """Rows that wait and whose clients still want them."""
        return self._queued_rows

    async def infer(self, payload: bytes, rows: int) -> Sequence[R]:
        """Run the model on these rows, in company.

        Waits at most `queue_timeout_s` (and for the batch that runs then) until its first row is
        run, then for the batches ahead of its last row. Cancelling is safe: rows that wait leave
        the queue, rows that run are forgotten, and other requests are untouched.

        Args:
            payload: `rows` rows of equal length.
            rows: at least 1.

        Returns:
            One result per row, in order.

        Raises:
            Overloaded: at once, when the queue is full.
            QueueTimeout: the queue did not move in time.
            RunError: the model failed on these rows; the cause says how.
        """
        job = self.submit(payload, rows)
        try:
            return await job.future  # type: ignore[no-any-return]  # the future that `submit` made
        except asyncio.CancelledError:
            self.forget(job)
            raise

    def submit(self, payload: bytes, rows: int) -> Job[R]:
        """Queue these rows and return at once; the answer arrives in the job's `asyncio.Future`.
        See `infer`."""
        job: Job[R] = Job(payload, rows, self._loop.create_future())
        self.enqueue(job)
        return job

    def enqueue(self, job: Job[R]) -> None:
        """Queue a job and return; its waiter may be told before this returns. Raises `Overloaded`;
        see `infer`."""
        rows = job.rows
        if self._queued_rows + rows > self._max_queue_size:
            raise Overloaded(
                f"{self._queued_rows} rows are waiting, of {self._max_queue_size} at most"
            )
        if self._queued_rows * self._cost.row_seconds > self._queue_timeout_s:
            raise Overloaded(
                f"{self._queued_rows} rows are waiting, more than are run in "
                f"{self._queue_timeout_s:g} s"
            )
        now = job.queued_at = self._clock()
        alone = not self._had_company and now - self._last_submit > self._solo_after_s
        self._last_submit = now
        self._queued_rows += rows
        (self._small if rows <= self._max_batch_size else self._bulk).append(job)
        if self._scheduled is None and not self._running:
            if alone:
                self._flush()
            else:
                self._schedule(self._max_queue_delay_s)
        elif (
            self._max_queue_delay_s
            and self._scheduled
            and self._queued_rows >= self._max_batch_size
        ):
            self._scheduled.cancel()  # a full batch waits for no more company
            self._schedule()

    def forget(self, job: Job[R]) -> None:
        """Give up a job: what waits of it leaves the queue's count now and the queue itself when
        its turn comes."""
        job.future.cancel()
        self._queued_rows -= job.rows - job.taken
        job.taken = job.rows
        job.payload = b""  # a stuck model must not let leavers pile up their rows

    async def drain(self) -> None:
        """Wait until every accepted row is answered. Cancelling is safe and stops only the
        waiting."""
        while self._small or self._bulk or self._running:
            self._idle = self._idle or self._loop.create_future()
            await asyncio.shield(self._idle)

    def _schedule(self, delay_s: float = 0.0) -> None:
        self._scheduled = (
            self._loop.call_later(delay_s, self._flush)
            if delay_s
            else self._loop.call_soon(self._flush)
        )

    def _flush(self) -> None:
        """Run one batch: here if it is cheap, else in the inference thread."""
        self._scheduled = None
        batch, rows = self._take()
        if not batch:
            self._next()
        elif self._cost.predict(rows) <= self._inline_budget_s:
            ran = _NEVER_RAN
            try:
                ran = self._timed(batch)
            finally:  # whatever stopped the run, nobody waits for it for ever
                self._finish(batch, rows, ran)
        else:
            try:
                done = self._loop.run_in_executor(self._executor, self._timed, batch)
            except RuntimeError:  # the executor was shut down
                self._finish(batch, rows, _NEVER_RAN)
            else:
                self._running = True
                done.add_done_callback(lambda done: self._landed(batch, rows, done))

    def _take(self) -> tuple[list[Part[R]], int]:
        """Choose the next batch: whole small requests up to the cap, or one piece of a bulk
        request."""
        now = self._clock()
        bulk_turn = self._small_in_a_row >= SMALL_BATCHES_PER_BULK or not self._small
        if self._bulk and bulk_turn:
            self._small_in_a_row = 0
            return self._take_bulk(now)
        self._small_in_a_row = self._small_in_a_row + 1 if self._bulk else 0
        batch: list[Part[R]] = []
        total = 0
        while self._small and total + self._small[0].rows <= self._max_batch_size:
            job = self._small.popleft()
            if self._wanted(job, now):
                self._claim(job, job.rows)
                batch.append(Part(job, job.payload, job.rows))
                total += job.rows
        return batch, total

    def _take_bulk(self, now: float) -> tuple[list[Part[R]], int]:
        while self._bulk:
            job = self._bulk.popleft()
            if self._wanted(job, now):
                width = len(job.payload) // job.rows
                start, rows = job.taken, min(self._max_batch_size, job.rows - job.taken)
                self._claim(job, rows)
                if job.taken < job.rows:
                    self._bulk.append(job)  # to the end: bulk requests take turns
                return [Part(job, job.payload[start * width : (start + rows) * width], rows)], rows
        return [], 0

    def _claim(self, job: Job[R], rows: int) -> None:
        job.taken += rows
        self._queued_rows -= rows

    def _wanted(self, job: Job[R], now: float) -> bool:
        """Whether to run a job that left the queue: nobody cancelled it, and its first row did not
        wait too long."""
        if job.future.done():
            self.forget(job)
            return False
        if job.taken == 0:
            waited = job.waited_s = now - job.queued_at
            self._observer.queued(waited)
            if waited > self._queue_timeout_s:
                job.future.set_exception(
                    QueueTimeout(
                        f"waited {waited:.1f} s in the queue, of {self._queue_timeout_s:g} s at "
                        "most"
                    )
                )
                self.forget(job)
                return False
        return True

    def _timed(self, batch: list[Part[R]]) -> Ran:
        """Run a batch."""
        start, cpu_start = self._clock(), self._cpu_clock()
        bisections = self._run_isolated(batch)
        return Ran(self._clock() - start, self._cpu_clock() - cpu_start, bisections)

    def _run_isolated(self, batch: list[Part[R]]) -> int:
        """Give every part its results or its own failure; return how often a batch had to be
        halved.

        With k failing requests among n, 2**m at most, a batch is halved at most k·m times, which
        costs two extra runs each.
        """
        rows = sum(part.rows for part in batch)
        try:
            results = self._run(
                batch[0].payload if len(batch) == 1 else b"".join([part.payload for part in batch]),
                rows,
            )
            if len(results) != rows:
                raise RunError(f"the model gave {len(results)} results for {rows} rows")
        except Exception as error:  # noqa: BLE001
            # whatever the model raises belongs to the request that caused it
            if len(batch) == 1:
                batch[0].failure = error
                return 0
            half = len(batch) // 2
            return 1 + self._run_isolated(batch[:half]) + self._run_isolated(batch[half:])
        start = 0
        for part in batch:
            part.results = results[start : start + part.rows]
            start += part.rows
        return 0

    def _landed(self, batch: list[Part[R]], rows: int, done: "asyncio.Future[Ran]") -> None:
        """Take over from the inference thread; one that was stopped leaves parts without results,
        which fail their jobs."""
        self._running = False
        stopped = done.cancelled() or done.exception() is not None
        self._finish(batch, rows, _NEVER_RAN if stopped else done.result())

    def _finish(self, batch: list[Part[R]], rows: int, ran: Ran) -> None:
        seconds, cpu_seconds, bisections = ran
        self._last_submit += seconds
        self._had_company = len(batch) > 1
        for part in batch:
            part.job.ran_s += seconds
            _resolve(part)
            if part.results is None:
                self.forget(part.job)  # the rest of a failed bulk request waits no more
        if (
            not bisections and batch[-1].results is not None
        ):  # a run that failed says nothing about the cost
            self._cost.learn(rows, cpu_seconds)
        self._observer.ran(rows, seconds, bisections)
        self._next()

    def _next(self) -> None:
        """Schedule the next batch if rows wait; else wake who waits for the end."""
        if self._small or self._bulk:
            if self._scheduled is None and not self._running:
                self._schedule()
        elif self._idle is not None and not self._running:
            idle, self._idle = self._idle, None
            idle.set_result(None)


def _resolve(part: Part[Any]) -> None:
    """Hand a part's outcome to its job; the job's future is resolved once, with its last part or
    its first failure."""
    job = part.job
    if job.future.done():
        return
    if part.results is None:
        job.future.set_exception(_as_run_error(part.failure))
        return
    if part.rows == job.rows:
        job.future.set_result(part.results)
        return
    job.results = job.results or []
    job.results.extend(part.results)
    if len(job.results) == job.rows:
        job.future.set_result(job.results)


def _as_run_error(failure: Exception | None) -> RunError:
    if isinstance(failure, RunError):
        return failure
    error = RunError("the model failed on these rows" if failure else "the run was stopped")
    error.__cause__ = failure
    return error


class Cost:
    """Predicts a batch's seconds as a + b·rows, by regression over a window that forgets
    exponentially.

    O(1) per batch: five decaying sums. Before the second batch size is seen, the cost per row of
    what was seen stands in.
    """

    __slots__ = ("_n", "_nn", "_nt", "_t", "_w", "row_seconds")
    DECAY = 0.98

    def __init__(self) -> None:
        self._w = self._n = self._t = self._nn = self._nt = 0.0
        self.row_seconds = 0.0
        """Seconds per row at the batch sizes seen lately; 0 before anything is known."""

    def learn(self, rows: int, seconds: float) -> None:
        """Take in one batch."""
        keep = self.DECAY
        self._w = self._w * keep + 1.0
        self._n = self._n * keep + rows
        self._t = self._t * keep + seconds
        self._nn = self._nn * keep + rows * rows
        self._nt = self._nt * keep + rows * seconds
        self.row_seconds = self._t / self._n

    def predict(self, rows: int) -> float:
        """Seconds that a batch of so many rows will take; 0 before anything is known."""
        if not self._w:
            return 0.0
        mean_rows, mean_seconds = self._n / self._w, self._t / self._w
        variance = self._nn / self._w - mean_rows * mean_rows
        if variance < 0.5:
            return mean_seconds * max(1.0, rows / mean_rows)
        slope = max(0.0, (self._nt / self._w - mean_rows * mean_seconds) / variance)
        return max(0.0, mean_seconds + slope * (rows - mean_rows))
