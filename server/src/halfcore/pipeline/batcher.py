"""Tick batching: rows that arrive in the same iteration of the event loop share one run of the
model.

Theory of operation. `enqueue` appends a job to a deque and, if none is scheduled, schedules one
flush with `call_soon`. The loop runs it after every callback that was ready in this iteration, so
under load a batch holds what all readable sockets brought. A row that arrives long after the one
before it is run within `enqueue`: no other rows are expected. After a run that several requests
shared it waits all the same, because their clients are about to send again. The time that the model
ran does not count, because no row could arrive in it; otherwise the rows of an expensive model
would run alone, one after another. A flush takes rows (`_take`, the only place that decides), runs
them, and resolves the jobs' futures. A batch that is predicted to cost more than `inline_budget_s`
goes to the one inference thread, and the rows that arrive meanwhile form the next batch.

Large requests are cut: they wait in a deque of their own and get every fifth batch while small ones
wait, so they delay them by one batch, not by their length. A run that fails is repeated in halves
until the failing request is alone; only that request fails.

Everything except `_run_isolated` in the thread happens on the event loop; there is no lock, no
timer when idle, and no task per request. Nothing here knows HTTP, JSON or ONNX Runtime: rows are
bytes, and `run` is a callable. A job's waiter has the methods of a future; the hot lane passes an
object that answers its client immediately, which saves a future and an iteration of the loop per
request.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from math import inf
from time import perf_counter, thread_time
from typing import Generic

from halfcore.pipeline.cost import Cost
from halfcore.pipeline.jobs import (
    NO_RUN,
    DeadlineExceeded,
    Job,
    Observer,
    Overloaded,
    Part,
    QueueTimeout,
    R,
    Run,
    RunError,
    resolve,
)
from halfcore.pipeline.standing import Standing

SMALL_BATCHES_PER_BULK = 4


class Batcher(Generic[R]):
    """One model version's queue.

    Args:
        run: turns the joined bytes of n rows into n results, in order; may raise. Called on the
            event loop or in `executor`, never twice at a time.
        executor: a pool of one thread for batches that are too expensive for the event loop.
        max_batch_size: most rows in one run.
        max_queue_size: most rows that wait; beyond it `enqueue` raises `Overloaded`. A larger
            request is never accepted.
        max_queue_delay_s: seconds that a row waits for other rows; 0 is one iteration of the loop.
        solo_after_s: a row that arrives later than this after the one before is run immediately,
            see above; infinity: every row waits for the end of the iteration.
        queue_timeout_s: a request that waited longer is not run, and a request that is predicted to
            wait longer is not accepted.
        queue_target_s: longest wait in a queue that stands, see `standing`; 0: it may stand.
        inline_budget_s: batches that are predicted to take longer go to the executor.
        observer: is notified of waits, runs and bisections.
        cost: what is already known of the model's cost, from its warm-up.
        clock: seconds; not the loop's time, which uvloop advances once per iteration.
        cpu_clock: seconds of CPU time of the calling thread. Runs are predicted by it: a run that
            was delayed by a spent quota or by the interpreter's lock was not expensive, and can
            stay on the event loop the next time.
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
        queue_target_s: float = 0.0,
        inline_budget_s: float = 0.001,
        cost: Cost | None = None,
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
        self._standing = Standing(queue_target_s)
        self._clock = clock
        self._cpu_clock = cpu_clock
        self._last_submit = -inf
        self._last_run_shared = False

    @property
    def queued_rows(self) -> int:
        """Rows that wait, without those of clients that left."""
        return self._queued_rows

    @property
    def expected_wait_s(self) -> float:
        """Seconds that running the waiting rows takes at most: less if full batches are cheaper per
        row than those seen lately. 0 before the model's cost is known."""
        return self._queued_rows * self._cost.row_seconds

    def refuses_small(self) -> bool:
        """Whether the queue stands and takes no more small requests, which is noted: it stands
        until none was refused for a while. May be called on any thread."""
        if len(self._small) < self._standing.most:
            return False
        self._standing.refused_at = self._clock()
        return True

    async def infer(self, payload: bytes, rows: int) -> Sequence[R]:
        """Run the model on these rows, in a batch with those of other requests.

        Waits at most `queue_timeout_s` (and for the batch that runs then) until its first row is
        run, then for the batches ahead of its last row. Cancelling is safe: rows that wait leave
        the queue, results of rows that run are dropped, and other requests are not affected.

        Args:
            payload: `rows` rows of equal length.
            rows: at least 1.

        Returns:
            One result per row, in order.

        Raises:
            Overloaded: immediately, if the queue is full.
            QueueTimeout: the queue did not move in time.
            RunError: the model failed on these rows; see the cause.
        """
        job = self.submit(payload, rows)
        try:
            return await job.future  # type: ignore[no-any-return]  # the future that `submit` made
        except asyncio.CancelledError:
            self.forget(job)
            raise

    def submit(self, payload: bytes, rows: int) -> Job[R]:
        """Queue these rows and return immediately; the results arrive in `job.future`, an
        `asyncio.Future`. See `infer`."""
        job: Job[R] = Job(payload, rows, self._loop.create_future())
        self.enqueue(job)
        return job

    def enqueue(self, job: Job[R]) -> None:
        """Queue a job; its waiter may get the results before this returns. Raises `Overloaded`; see
        `infer`."""
        rows = job.rows
        if self._queued_rows + rows > self._max_queue_size:
            raise Overloaded(
                f"{self._queued_rows} rows are waiting, of {self._max_queue_size} at most"
            )
        if self.expected_wait_s > self._queue_timeout_s:
            self._refuse_if_late(rows)
        if rows <= self._max_batch_size and self.refuses_small():
            raise Overloaded(
                f"{len(self._small)} requests are waiting, as many as are run in the time that a "
                "request should wait"
            )
        now = job.queued_at = self._clock()
        alone = not self._last_run_shared and now - self._last_submit > self._solo_after_s
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
            self._scheduled.cancel()  # the batch is full: do not wait for more rows
            self._schedule()

    def _refuse_if_late(self, rows: int) -> None:
        """Raise `Overloaded` if full batches of the rows ahead of a new request take longer than it
        may wait. Those of large requests are not ahead of a small one: they are run in between."""
        ahead = self._queued_rows
        batches = ahead / self._max_batch_size
        if self._bulk and rows <= self._max_batch_size:
            ahead -= sum(job.rows - job.taken for job in self._bulk)
            batches = ahead / self._max_batch_size * (1 + 1 / SMALL_BATCHES_PER_BULK)
        if batches * self._cost.predict(self._max_batch_size) > self._queue_timeout_s:
            raise Overloaded(
                f"{ahead} rows are waiting, more than are run in {self._queue_timeout_s:g} s"
            )

    def forget(self, job: Job[R]) -> None:
        """Give up a job: its waiting rows leave the queue's count now, and the queue itself when
        they reach its front."""
        job.future.cancel()
        self._queued_rows -= job.rows - job.taken
        job.taken = job.rows
        job.payload = b""  # while a model is stuck, rows of clients that left must not pile up

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
        """Run one batch: here if it is cheap, otherwise in the inference thread."""
        self._scheduled = None
        batch, rows = self._take()
        if not batch:
            self._next()
        elif self._cost.predict(rows) <= self._inline_budget_s:
            ran = NO_RUN
            try:
                ran = self._timed(batch)
            finally:  # whatever stopped the run, no client may wait without end
                self._finish(batch, rows, ran)
        else:
            try:
                done = self._loop.run_in_executor(self._executor, self._timed, batch)
            except RuntimeError:  # the executor was shut down
                self._finish(batch, rows, NO_RUN)
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
        if self._standing.target_s:
            self._shorten(now)
        batch: list[Part[R]] = []
        total = 0
        while self._small and total + self._small[0].rows <= self._max_batch_size:
            job = self._small.popleft()
            if self._wanted(job, now):
                self._claim(job, job.rows)
                batch.append(Part(job, job.payload, job.rows))
                total += job.rows
        self._standing.took(len(batch))
        return batch, total

    def _shorten(self, now: float) -> None:
        """Refuse the oldest requests of a queue that stands. One behind bulk requests does not: its
        wait ends with them."""
        small = self._small
        waits = small and not self._bulk
        self._standing.look(now, now - small[0].queued_at if waits else 0.0)
        while len(small) > self._standing.most:
            job = small.popleft()
            if not job.future.done():
                self._standing.refused_at = now
                job.future.set_exception(Overloaded("other requests have waited less; try again"))
            self.forget(job)

    def _take_bulk(self, now: float) -> tuple[list[Part[R]], int]:
        while self._bulk:
            job = self._bulk.popleft()
            if self._wanted(job, now):
                width = len(job.payload) // job.rows
                start, rows = job.taken, min(self._max_batch_size, job.rows - job.taken)
                self._claim(job, rows)
                if job.taken < job.rows:
                    self._bulk.append(job)  # to the end: bulk requests alternate
                return [Part(job, job.payload[start * width : (start + rows) * width], rows)], rows
        return [], 0

    def _claim(self, job: Job[R], rows: int) -> None:
        job.taken += rows
        self._queued_rows -= rows

    def _wanted(self, job: Job[R], now: float) -> bool:
        """Whether to run a job that left the queue: it was not cancelled, its deadline has not
        passed, and its first row did not wait too long."""
        if job.future.done():
            self.forget(job)
            return False
        late: Exception | None = None
        if job.taken == 0:
            waited = job.waited_s = now - job.queued_at
            self._observer.queued(waited)
            if waited > self._queue_timeout_s:
                late = QueueTimeout(
                    f"waited {waited:.1f} s in the queue, of {self._queue_timeout_s:g} s at most"
                )
        if now >= job.deadline:
            late = DeadlineExceeded()
        if late is None:
            return True
        job.future.set_exception(late)
        self.forget(job)
        return False

    def _timed(self, batch: list[Part[R]]) -> Run:
        """Run a batch and measure it."""
        start, cpu_start = self._clock(), self._cpu_clock()
        bisections = self._run_isolated(batch)
        return Run(self._clock() - start, self._cpu_clock() - cpu_start, bisections)

    def _run_isolated(self, batch: list[Part[R]]) -> int:
        """Give every part its results or its own failure; return how often a batch was halved.

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
            # whatever the model raises is the failure of the request that caused it
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

    def _landed(self, batch: list[Part[R]], rows: int, done: asyncio.Future[Run]) -> None:
        """Take the results of the inference thread. If its run was stopped, parts have no results
        and their jobs fail."""
        self._running = False
        stopped = done.cancelled() or done.exception() is not None
        self._finish(batch, rows, NO_RUN if stopped else done.result())

    def _finish(self, batch: list[Part[R]], rows: int, run: Run) -> None:
        seconds, cpu_seconds, bisections = run
        self._last_submit += seconds
        self._last_run_shared = len(batch) > 1
        for part in batch:
            part.job.ran_s += seconds
            resolve(part)
            if part.results is None:
                self.forget(part.job)  # do not run the rest of a failed bulk request
        if (
            not bisections and batch[-1].results is not None
        ):  # a run that failed says nothing about the cost
            self._cost.learn(rows, cpu_seconds)
        self._observer.ran(rows, seconds, bisections)
        self._next()

    def _next(self) -> None:
        """Schedule the next batch if rows wait; otherwise wake `drain`."""
        if self._small or self._bulk:
            if self._scheduled is None and not self._running:
                self._schedule()
        elif self._idle is not None and not self._running:
            idle, self._idle = self._idle, None
            idle.set_result(None)
