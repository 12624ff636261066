"""The batcher against a reference model: hypothesis submits, cancels, breaks and delays, and the
books must balance after every step.

The loop turns only when a step says so, time passes only by steps and runs, and the inference
thread reports when a step lets it: every failure replays. The reference knows nothing of batches;
it counts each request's rows as the engine sees them go by.
"""

import asyncio
from array import array
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from typing import Any

from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    precondition,
    rule,
)

from halfcore.pipeline.batcher import Batcher
from halfcore.pipeline.jobs import Job, Overloaded, QueueTimeout, RunError
from support.examples import examples

MAX_BATCH, MAX_QUEUE, TIMEOUT_S, BUDGET_S = 4, 30, 5.0, 0.001


def answer(row: int) -> int:
    """What the engine says of a row."""
    return row * 2654435761 % 2**32


@dataclass(eq=False)
class Request:
    """What the reference knows of a request."""

    job: Job[int]
    ids: range
    number: int
    queued_at: float
    faulty: bool
    seen: set[int] = field(default_factory=set)
    answered: set[int] = field(default_factory=set)
    cancelled: bool = False
    resolutions: int = 0

    @property
    def bulk(self) -> bool:
        """Whether it must be cut."""
        return len(self.ids) > MAX_BATCH


class LateThread(Executor):
    """Computes when it gets work and reports the result when a step lets it, so that the reference
    sees rows leave when they leave."""

    def __init__(self) -> None:
        self.unreported: list[Callable[[], None]] = []
        self.computing = False

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Compute at once, report later."""
        assert not self.unreported, "two batches at a time"
        future: Future[Any] = Future()
        self.computing = True
        result = fn(*args, **kwargs)
        self.computing = False
        self.unreported.append(lambda: future.set_result(result))
        return future


class BatcherMachine(RuleBasedStateMachine):
    """Everything that can happen to a batcher, in any order."""

    requests = Bundle("requests")

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.complaints: list[object] = []
        self.loop.set_exception_handler(lambda _loop, context: self.complain(context))
        self.thread = LateThread()
        self.now = 0.0
        self.row_seconds = 0.0
        self.flaky = 0
        self.poison: set[int] = set()
        self.miscounted: dict[int, int] = {}
        self.known: list[Request] = []
        self.owner: dict[int, Request] = {}
        self.last_small = -1
        self.small_in_a_row = 0
        self.batcher = self.loop.run_until_complete(self.make())

    async def make(self) -> Batcher[int]:
        """Make the batcher on its loop."""
        return Batcher(
            self.run_batch,
            executor=self.thread,
            observer=self,
            max_batch_size=MAX_BATCH,
            max_queue_size=MAX_QUEUE,
            queue_timeout_s=TIMEOUT_S,
            inline_budget_s=BUDGET_S,
            clock=lambda: self.now,
            cpu_clock=lambda: self.now,
        )

    # The engine and the observer, with the reference's eyes in them

    def complain(self, what: object) -> None:
        """Keep a complaint for the next look at the books: one raised in a run would be taken for
        the engine's failure."""
        self.complaints.append(what)

    def run_batch(self, payload: bytes, rows: int) -> Sequence[int]:
        """Answer rows, and check that they may be run now and together."""
        try:
            return self.compute(payload, rows)
        except AssertionError as broken:
            self.complain(broken)
            raise

    def compute(self, payload: bytes, rows: int) -> Sequence[int]:
        """The engine."""
        ids = array("I", payload)
        assert 0 < len(ids) == rows <= MAX_BATCH
        assert self.thread.computing or not self.thread.unreported, (
            "a run on the loop during a run in the thread"
        )
        self.see(ids)
        self.now += rows * self.row_seconds
        if self.flaky or self.poison.intersection(ids):
            self.flaky = max(0, self.flaky - 1)
            raise ValueError("poison")
        surplus = next((self.miscounted[row] for row in ids if row in self.miscounted), 0)
        results = [answer(row) for row in ids] + [0] * surplus
        if surplus < 0:
            del results[surplus:]
        if not surplus:
            for row in ids:
                assert row not in self.owner[row].answered, "a row was answered twice"
                self.owner[row].answered.add(row)
        return results

    def see(self, ids: "array[int]") -> None:
        """Note which rows left the queue; a halved batch's rows are seen again and say nothing
        new."""
        owners = list(dict.fromkeys(self.owner[row] for row in ids))
        fresh = [request for request in owners if not request.seen.intersection(ids)]
        for request in fresh:
            assert not request.job.future.done(), "rows were run that nobody waits for"
            if not request.seen:
                assert self.now - request.queued_at <= TIMEOUT_S, "an expired request was run"
            mine = [row for row in ids if row in request.ids]
            assert mine[0] == request.ids[len(request.seen)], "rows left out of order"
            request.seen.update(mine)
        if fresh:
            self.see_turn(owners)

    def see_turn(self, owners: list[Request]) -> None:
        """Small requests go in order of arrival; bulk goes alone, and at the latest after four
        small batches."""
        if any(request.bulk for request in owners):
            assert len(owners) == 1
            self.small_in_a_row = 0
            return
        for request in owners:
            assert request.number > self.last_small, "a small request was overtaken"
            assert request.seen == set(request.ids)
            self.last_small = request.number
        bulk_waits = any(request.bulk and self.waiting(request) for request in self.known)
        self.small_in_a_row = self.small_in_a_row + 1 if bulk_waits else 0
        assert self.small_in_a_row <= 4, "bulk starves"

    def waiting(self, request: Request) -> int:
        """Rows of a request that wait, by the reference's books."""
        return 0 if request.job.future.done() else len(request.ids) - len(request.seen)

    def queued(self, seconds: float) -> None:
        """Waits cannot be negative."""
        assert seconds >= 0

    def ran(self, rows: int, seconds: float, bisections: int) -> None:
        """A batch was run or given up."""
        assert 0 < rows <= MAX_BATCH
        assert seconds >= 0
        assert 0 <= bisections < MAX_BATCH

    # What happens

    @rule(
        target=requests,
        rows=st.integers(1, 3 * MAX_BATCH) | st.integers(1, 3),
        fault=st.sampled_from(["", "", "", "", "poison", "short", "long"]),
        at=st.integers(0, 3 * MAX_BATCH),
    )
    def submit(self, rows: int, fault: str, at: int) -> Request | None:
        """A request arrives, some with a row that the engine trips over; beyond the bound it is
        refused."""
        ids = range(len(self.owner), len(self.owner) + rows)
        room = sum(self.waiting(request) for request in self.known) + rows <= MAX_QUEUE
        try:
            job = self.batcher.submit(array("I", ids).tobytes(), rows)
        except Overloaded as refusal:
            if room and "more than are run" not in str(refusal):
                self.complain(refusal)
            return None
        assert room, "more was queued than max_queue_size"
        request = Request(job, ids, len(self.known), self.now, bool(fault))
        job.future.add_done_callback(lambda future: self.resolved(request, future))
        self.known.append(request)
        self.owner.update(dict.fromkeys(ids, request))
        bad_row = ids[at % rows]
        if fault == "poison":
            self.poison.add(bad_row)
        elif fault:
            self.miscounted[bad_row] = 1 if fault == "long" else -1
        return request

    def resolved(self, request: Request, future: "asyncio.Future[Sequence[int]]") -> None:
        """A future was resolved."""
        request.resolutions += 1
        if not future.cancelled():
            future.exception()  # so that asyncio need not complain of an unread one

    @rule(request=consumes(requests))
    def cancel(self, request: Request | None) -> None:
        """A client leaves, whatever has become of its request."""
        if request is None:
            return
        if request.bulk:
            self.small_in_a_row = 0
        request.cancelled = not request.job.future.done()
        self.batcher.forget(request.job)

    @rule(turns=st.integers(1, 4))
    def turn(self, turns: int) -> None:
        """The loop turns."""
        for _ in range(turns):
            self.loop.call_soon(self.loop.stop)
            self.loop.run_forever()

    @precondition(lambda self: self.thread.unreported)
    @rule()
    def report(self) -> None:
        """The inference thread reports its run."""
        self.thread.unreported.pop()()

    @rule(seconds=st.sampled_from([0.001, 1.0, 3.0, 6.0]))
    def pass_time(self, seconds: float) -> None:
        """Time passes; six seconds are longer than a request waits."""
        self.now += seconds

    @rule(row_seconds=st.sampled_from([0.0, 0.0001, 0.1]))
    def change_pace(self, row_seconds: float) -> None:
        """The engine becomes cheap enough for the loop, or too expensive."""
        self.row_seconds = row_seconds

    @rule()
    def stumble(self) -> None:
        """The engine's next run fails, whatever its rows."""
        self.flaky = 1

    # What must be true

    @invariant()
    def the_books_balance(self) -> None:
        """Rows that wait are counted, exactly; nothing was resolved twice; nothing escaped to the
        loop."""
        expected = sum(self.waiting(request) for request in self.known)
        assert self.batcher.queued_rows == expected <= MAX_QUEUE
        assert self.complaints == []
        assert all(request.resolutions <= 1 for request in self.known)

    def teardown(self) -> None:
        """Let all that waits be run; then each request has exactly one outcome, and it is the right
        one."""
        try:
            drain = self.loop.create_task(self.batcher.drain())
            for _ in range(10 + 6 * len(self.owner)):
                if self.thread.unreported:
                    self.report()
                self.turn(1)
            assert drain.done(), "rows wait without end"
            assert self.batcher.queued_rows == 0
            for request in self.known:
                self.check_outcome(request)
            assert self.complaints == []
        finally:
            self.loop.close()

    def check_outcome(self, request: Request) -> None:
        """The answer is the request's own, or there is a reason for its error."""
        future = request.job.future
        assert request.resolutions == 1
        if future.cancelled():
            assert request.cancelled
            return
        match future.exception():
            case None:
                assert not request.faulty
                assert list(future.result()) == [answer(row) for row in request.ids]
                assert request.answered == set(request.ids)
            case QueueTimeout():
                assert not request.seen
                assert self.now - request.queued_at > TIMEOUT_S
            case RunError() as error:
                assert request.seen
                assert request.faulty or str(error.__cause__) == "poison"
            case other:
                raise AssertionError(f"an unexpected outcome: {other!r}")


BatcherMachine.TestCase.settings = settings(
    examples(100),
    database=None,
    phases=[
        Phase.explicit,
        Phase.generate,
    ],  # a failure of fifty steps now, rather than one of five in some minutes
    stateful_step_count=50,
)
TestBatcherProperties = BatcherMachine.TestCase
TestBatcherProperties.__doc__ = (
    "Whatever happens in whatever order, each request has exactly one outcome, its own, and the "
    "counts are right."
)
