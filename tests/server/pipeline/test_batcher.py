"""The batcher, sentence by sentence: whatever happens to its mates, a request gets its own rows'
answers, once, or one clear error.

Time is a fake clock that only `run` and the tests move; the inference thread is a fake that
finishes when the test says so.
"""

import asyncio
import gc
import time
import weakref
from array import array
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from math import log2
from typing import Any

import pytest
from blockbuster import BlockingError, blockbuster_ctx

from halfcore.pipeline.batcher import Batcher
from halfcore.pipeline.cost import Cost
from halfcore.pipeline.jobs import DeadlineExceeded, Job, Overloaded, QueueTimeout, RunError

CHEAP, EXPENSIVE = 0.00001, 0.1  # seconds per row; the inline budget is 0.001 s


def rows_of(*ids: int) -> bytes:
    """Rows of four bytes; a row is its number."""
    return array("I", ids).tobytes()


def answers(*ids: int) -> list[int]:
    """What the model says of these rows."""
    return [number * 2654435761 % 2**32 for number in ids]


class Clock:
    """Seconds that pass only on request."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        """The time now."""
        return self.now

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds


class Model:
    """Answers each row by its number, takes time on the fake clock, and fails where it is
    configured to."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.row_seconds = 0.0
        self.runs: list[list[int]] = []
        self.poison: set[int] = set()
        self.too_long: set[int] = set()
        self.raises: type[BaseException] = ValueError

    def run(self, payload: bytes, rows: int) -> Sequence[int]:
        """Answer these rows; raise if one of them is poison."""
        ids = list(array("I", bytes(payload)))
        assert len(ids) == rows
        self.runs.append(ids)
        self.clock.advance(rows * self.row_seconds)
        if self.poison.intersection(ids):
            raise self.raises("poison")
        return answers(*ids, *self.too_long.intersection(ids))


class Thread(Executor):
    """An inference thread that starts work when the test says `finish`."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Future[Any], Callable[[], Any]]] = []
        self.down = False

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Keep the work until `finish`."""
        if self.down:
            raise RuntimeError("cannot schedule new futures after shutdown")
        future: Future[Any] = Future()
        self.waiting.append((future, lambda: fn(*args, **kwargs)))
        return future

    # The base class's signature
    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: ARG002
        """Refuse new work; drop what waits if `cancel_futures` is set."""
        self.down = True
        if cancel_futures:
            while self.waiting:
                self.waiting.pop()[0].cancel()

    async def finish(self) -> None:
        """Do the waiting work and let the loop hear of it."""
        future, work = self.waiting.pop(0)
        try:
            future.set_result(work())
        except BaseException as error:  # noqa: BLE001  as a real pool does
            future.set_exception(error)
        await turns(3)


class Watch:
    """Remembers what the batcher reported."""

    def __init__(self) -> None:
        self.waits: list[float] = []
        self.batches: list[tuple[int, int]] = []

    def queued(self, seconds: float) -> None:
        """Note a wait."""
        self.waits.append(seconds)

    def ran(self, rows: int, seconds: float, bisections: int) -> None:
        """Note a batch."""
        assert seconds >= 0
        self.batches.append((rows, bisections))


class Bench:
    """A batcher's surroundings, all of them fakes, and a way to make one."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.model = Model(self.clock)
        self.thread = Thread()
        self.watch = Watch()

    def batcher(self, *, row_seconds: float | None = None, **options: Any) -> Batcher[int]:
        """Make a batcher among the fakes; with `row_seconds` it is warmed up for a model that takes
        this long."""
        surroundings: dict[str, Any] = {
            "executor": self.thread,
            "observer": self.watch,
            "clock": self.clock,
            "cpu_clock": self.clock,
        }
        if row_seconds is not None:
            self.model.row_seconds = row_seconds
            surroundings["cost"] = learned(row_seconds)
        return Batcher(self.model.run, **{**surroundings, **options})


@pytest.fixture
def bench() -> Bench:
    """Fakes around a batcher."""
    return Bench()


def learned(row_seconds: float, batch_seconds: float = 0.0) -> Cost:
    """The cost of a model that was warmed up with batches of 1 and 128 rows."""
    cost = Cost()
    for rows in (1, 128):
        cost.learn(rows, batch_seconds + rows * row_seconds)
    return cost


async def turns(count: int) -> None:
    """Let the loop turn."""
    for _ in range(count):
        await asyncio.sleep(0)


async def finish_next(thread: Thread) -> None:
    """Wait until the thread has work, and let it do it."""
    for _ in range(10):
        if thread.waiting:
            return await thread.finish()
        await asyncio.sleep(0)
    raise AssertionError("the thread got no work")


async def start(work: Coroutine[Any, Any, Sequence[int]]) -> "asyncio.Task[Sequence[int]]":
    """Start a request and let it come as far as its first wait, within this turn of the loop."""
    task = asyncio.ensure_future(work)
    await asyncio.sleep(0)
    return task


def outcome(job: Job[int]) -> Sequence[int] | BaseException:
    """A finished job's answer or error."""
    return job.future.exception() or job.future.result()


# --- Which requests share a run ---


async def test_rows_of_one_turn_share_a_run(bench: Bench) -> None:
    """Requests that arrive in the same turn of the loop are one batch, and each gets the answers to
    its own rows."""
    batcher = bench.batcher()

    got = await asyncio.gather(
        *[batcher.infer(rows_of(*ids), len(ids)) for ids in ([1], [2, 3], [4])]
    )

    assert got == [answers(1), answers(2, 3), answers(4)]
    assert bench.model.runs == [[1, 2, 3, 4]]
    assert bench.watch.batches == [(4, 0)]
    assert bench.watch.waits == [0.0, 0.0, 0.0]


async def test_one_row_alone_waits_for_no_timer(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a delay of 0 a lone row is run within one turn of the loop, and no timer lives before,
    meanwhile or after."""
    timers: list[Any] = []
    loop = asyncio.get_running_loop()
    monkeypatch.setattr(loop, "call_later", lambda *timer: timers.append(timer))
    monkeypatch.setattr(loop, "call_at", lambda *timer: timers.append(timer))
    batcher = bench.batcher(max_queue_delay_s=0.0)

    job = batcher.submit(rows_of(7), 1)
    assert not bench.model.runs
    await turns(1)

    assert job.future.result() == answers(7)
    await batcher.drain()
    assert not timers


async def test_a_queue_delay_collects_rows_with_one_timer(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a delay the first row starts the only timer, and all that arrive until it rings share
    its run."""
    timers: list[tuple[float, Callable[[], None]]] = []

    def call_later(delay_s: float, ring: Callable[[], None]) -> object:
        timers.append((delay_s, ring))
        return object()

    monkeypatch.setattr(asyncio.get_running_loop(), "call_later", call_later)
    batcher = bench.batcher(max_queue_delay_s=0.002)

    first = batcher.submit(rows_of(1), 1)
    await turns(3)
    second = batcher.submit(rows_of(2), 1)
    await turns(3)
    assert not bench.model.runs
    [(delay, ring)] = timers
    ring()

    assert delay == 0.002
    assert (first.future.result(), second.future.result()) == (answers(1), answers(2))
    assert bench.model.runs == [[1, 2]]


async def test_a_row_long_after_the_one_before_is_run_at_once(bench: Bench) -> None:
    """Nobody is there to share its run; those that follow on its heels share the next."""
    batcher = bench.batcher(solo_after_s=0.001)
    first = batcher.submit(rows_of(1), 1)
    assert outcome(first) == answers(1)
    bench.clock.advance(0.002)
    assert outcome(batcher.submit(rows_of(2), 1)) == answers(2)

    third, fourth = batcher.submit(rows_of(3), 1), batcher.submit(rows_of(4), 1)
    assert not third.future.done()
    await turns(2)
    assert [outcome(third), outcome(fourth)] == [answers(3), answers(4)]
    assert bench.model.runs == [[1], [2], [3, 4]]


async def test_after_a_shared_run_a_row_waits_for_others_again(bench: Bench) -> None:
    """Clients that shared a run send again together, however long their answers took; a request
    that then arrives alone is run immediately again."""
    batcher = bench.batcher(solo_after_s=0.001)
    batcher.submit(rows_of(1), 1), batcher.submit(rows_of(2), 1), batcher.submit(rows_of(3), 1)
    await turns(2)

    bench.clock.advance(0.002)
    fourth = batcher.submit(rows_of(4), 1)
    assert not fourth.future.done()
    await turns(2)
    assert outcome(fourth) == answers(4)

    bench.clock.advance(0.002)
    assert outcome(batcher.submit(rows_of(5), 1)) == answers(5)
    assert bench.model.runs == [[1], [2, 3], [4], [5]]


async def test_rows_that_arrived_while_the_model_ran_share_the_next_run(bench: Bench) -> None:
    """A run longer than `solo_after_s` is no quiet time: the heavy forest ran two rows of three
    alone, one after another."""
    batcher = bench.batcher(solo_after_s=0.001, row_seconds=0.01, inline_budget_s=1.0)
    first = batcher.submit(rows_of(1), 1)
    assert outcome(first) == answers(1)

    jobs = [batcher.submit(rows_of(id_), 1) for id_ in (2, 3)]
    await turns(2)
    assert [outcome(job) for job in jobs] == [answers(2), answers(3)]
    assert bench.model.runs == [[1], [2, 3]]


async def test_a_lone_row_of_an_expensive_model_goes_to_the_thread_at_once(bench: Bench) -> None:
    """Running within submit is no way around the inline budget."""
    batcher = bench.batcher(solo_after_s=0.001, row_seconds=1.0, inline_budget_s=0.1)
    job = batcher.submit(rows_of(1), 1)
    assert not job.future.done()
    await finish_next(bench.thread)
    assert outcome(job) == answers(1)


async def test_a_full_batch_waits_for_no_more_rows(bench: Bench) -> None:
    """Once max_batch_size rows are there, waiting on would buy nothing."""
    batcher = bench.batcher(max_queue_delay_s=60.0, max_batch_size=3)
    jobs = [batcher.submit(rows_of(id_), 1) for id_ in (1, 2, 3)]
    await turns(2)

    assert [outcome(job) for job in jobs] == [answers(1), answers(2), answers(3)]
    assert bench.model.runs == [[1, 2, 3]]


async def test_an_idle_batcher_holds_the_loop_with_nothing(bench: Bench) -> None:
    """After the last answer no callback of the batcher is ready, no timer is set, and no task is
    alive."""
    batcher = bench.batcher()
    loop: Any = asyncio.get_running_loop()
    before = asyncio.all_tasks()
    timers = len(loop._scheduled)

    await batcher.infer(rows_of(1), 1)
    await batcher.drain()
    await turns(2)

    assert not loop._ready
    assert len(loop._scheduled) == timers
    assert asyncio.all_tasks() == before


async def test_rows_not_requests_are_counted(bench: Bench) -> None:
    """A batch holds at most max_batch_size rows, whole requests in order of arrival, however few
    requests that is."""
    batcher = bench.batcher(max_batch_size=4)

    jobs = [
        batcher.submit(rows_of(*ids), len(ids))
        for ids in ([1, 2], [3, 4], [5, 6, 7], [8], [9, 10, 11, 12])
    ]
    await batcher.drain()

    assert bench.model.runs == [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12]]
    assert [job.future.result() for job in jobs] == [
        answers(1, 2),
        answers(3, 4),
        answers(5, 6, 7),
        answers(8),
        answers(9, 10, 11, 12),
    ]


async def test_a_request_of_exactly_one_batch_is_not_cut(bench: Bench) -> None:
    """max_batch_size rows still fit one run; one row more is cut."""
    batcher = bench.batcher(max_batch_size=3)

    await asyncio.gather(batcher.infer(rows_of(1, 2, 3), 3), batcher.infer(rows_of(4, 5, 6, 7), 4))

    assert bench.model.runs == [[1, 2, 3], [4, 5, 6], [7]]


async def test_the_loop_gets_its_turn_between_batches(bench: Bench) -> None:
    """However long the queue is, other callbacks run between two batches."""
    batcher = bench.batcher(max_batch_size=1)
    jobs = [batcher.submit(rows_of(number), 1) for number in range(5)]

    seen = []
    while not jobs[-1].future.done():
        await asyncio.sleep(0)
        seen.append(len(bench.model.runs))

    assert seen == [1, 2, 3, 4, 5]


# --- Leaving: cancelled requests ---


async def test_a_leaver_does_not_disturb_its_batch_mates(bench: Bench) -> None:
    """A request that is cancelled while queued is not run, its rows leave the count at once, and
    the others get their own rows."""
    batcher = bench.batcher(row_seconds=EXPENSIVE)
    busy = batcher.submit(rows_of(0), 1)
    await turns(1)
    stay, leave, stay_too = [
        await start(batcher.infer(rows_of(*ids), len(ids))) for ids in ([1], [2, 3], [4])
    ]
    assert batcher.queued_rows == 4

    leave.cancel()
    await turns(1)
    assert leave.cancelled()
    assert batcher.queued_rows == 2
    await bench.thread.finish()
    await bench.thread.finish()

    assert busy.future.result() == answers(0)
    assert (await stay, await stay_too) == (answers(1), answers(4))
    assert bench.model.runs == [[0], [1, 4]]


async def test_leaving_during_the_run_is_noticed_by_nobody_else(bench: Bench) -> None:
    """A request that is cancelled while the inference thread runs its batch ends at once; its mates
    get their own rows."""
    batcher = bench.batcher(row_seconds=EXPENSIVE)
    stay, leave, stay_too = [
        asyncio.ensure_future(batcher.infer(rows_of(number), 1)) for number in (1, 2, 3)
    ]
    await turns(2)
    assert len(bench.thread.waiting) == 1

    leave.cancel()
    await turns(1)
    assert leave.cancelled()
    await bench.thread.finish()

    assert (await stay, await stay_too) == (answers(1), answers(3))
    assert bench.model.runs == [[1, 2, 3]]
    assert batcher.queued_rows == 0
    next_one = batcher.submit(rows_of(4), 1)
    await finish_next(bench.thread)
    assert next_one.future.result() == answers(4)


async def test_leaving_after_the_run_changes_nothing(bench: Bench) -> None:
    """Forgetting an answered job, even twice, leaves its answer and the count alone."""
    batcher = bench.batcher()
    job = batcher.submit(rows_of(1), 1)
    await batcher.drain()

    batcher.forget(job)
    batcher.forget(job)

    assert job.future.result() == answers(1)
    assert batcher.queued_rows == 0


async def test_leaving_between_answer_and_wake_up_is_a_plain_cancellation(bench: Bench) -> None:
    """A task that is cancelled after its answer was set but before it woke ends as cancelled, and
    the count is not wrong by it."""
    batcher = bench.batcher()
    task = asyncio.ensure_future(batcher.infer(rows_of(1), 1))
    asyncio.get_running_loop().call_soon(lambda: asyncio.get_running_loop().call_soon(task.cancel))

    with pytest.raises(asyncio.CancelledError):
        await task

    assert bench.model.runs == [[1]]
    assert batcher.queued_rows == 0


async def test_a_forgotten_job_is_counted_once(bench: Bench) -> None:
    """Forgetting a waiting job twice takes its rows off the count once."""
    batcher = bench.batcher()
    leave, stay = batcher.submit(rows_of(1, 2), 2), batcher.submit(rows_of(3), 1)

    batcher.forget(leave)
    batcher.forget(leave)
    assert batcher.queued_rows == 1
    await batcher.drain()

    assert batcher.queued_rows == 0
    assert stay.future.result() == answers(3)


async def test_a_bulk_leaver_frees_its_rows_at_once_and_runs_no_more(bench: Bench) -> None:
    """A bulk request that is cancelled between two pieces is not run further."""
    batcher = bench.batcher(max_batch_size=2)
    job = batcher.submit(rows_of(1, 2, 3, 4, 5), 5)
    await turns(1)
    assert batcher.queued_rows == 3

    batcher.forget(job)
    assert batcher.queued_rows == 0
    await batcher.drain()

    assert bench.model.runs == [[1, 2]]


async def test_a_thousand_answers_follow_cancellations_everywhere(bench: Bench) -> None:
    """After requests were cancelled before, during and after their run, the next thousand are all
    answered."""
    batcher = bench.batcher(row_seconds=EXPENSIVE, queue_timeout_s=1000.0)
    before = batcher.submit(rows_of(1), 1)
    batcher.forget(before)
    during = batcher.submit(rows_of(2), 1)
    await turns(1)
    batcher.forget(during)
    await bench.thread.finish()
    batcher.forget(during)

    requests = [asyncio.ensure_future(batcher.infer(rows_of(number), 1)) for number in range(1000)]
    while not all(request.done() for request in requests):
        await finish_next(bench.thread)

    assert [await request for request in requests] == [answers(number) for number in range(1000)]


# --- Bulk: large requests ---


async def test_a_bulk_answer_is_the_concatenation_of_its_rows(bench: Bench) -> None:
    """A request above max_batch_size runs in pieces of at most that size, and its answer is its
    rows' answers in order."""
    batcher = bench.batcher(max_batch_size=4)
    ids = range(100, 111)

    assert list(await batcher.infer(rows_of(*ids), len(ids))) == answers(*ids)

    assert bench.model.runs == [[100, 101, 102, 103], [104, 105, 106, 107], [108, 109, 110]]
    assert bench.watch.waits == [0.0]


async def test_bulk_takes_every_fifth_batch_while_small_ones_wait(bench: Bench) -> None:
    """Four batches of small requests, one piece of bulk, and so on: neither starves."""
    batcher = bench.batcher(max_batch_size=2)
    bulk = batcher.submit(rows_of(*range(100, 106)), 6)
    for number in range(20):
        batcher.submit(rows_of(number), 1)

    await batcher.drain()

    kinds = "".join("B" if run[0] >= 100 else "s" for run in bench.model.runs)
    assert kinds == "ssssBssssBssB"
    assert bulk.future.result() == answers(*range(100, 106))


async def test_bulk_requests_take_turns(bench: Bench) -> None:
    """Two bulk requests advance by a piece each, so the second does not wait for the length of the
    first."""
    batcher = bench.batcher(max_batch_size=2)

    first, second = (
        batcher.submit(rows_of(10, 11, 12, 13, 14), 5),
        batcher.submit(rows_of(20, 21, 22), 3),
    )
    await batcher.drain()

    assert bench.model.runs == [[10, 11], [20, 21], [12, 13], [22], [14]]
    assert first.future.result() == answers(10, 11, 12, 13, 14)
    assert second.future.result() == answers(20, 21, 22)


async def test_a_failing_piece_fails_the_whole_bulk_request_and_frees_its_rows(
    bench: Bench,
) -> None:
    """One poisoned piece fails its request at once; the pieces behind it are not run and are not
    counted as waiting."""
    batcher = bench.batcher(max_batch_size=2)
    bench.model.poison = {3}
    bulk, mate = (
        batcher.submit(rows_of(1, 2, 3, 4, 5, 6, 7), 7),
        batcher.submit(rows_of(50, 51, 52), 3),
    )

    await turns(3)
    assert isinstance(bulk.future.exception(), RunError)
    assert batcher.queued_rows == 1  # the mate's last row
    await batcher.drain()

    assert mate.future.result() == answers(50, 51, 52)
    assert bench.model.runs == [[1, 2], [50, 51], [3, 4], [52]]


# --- Failure: the model misbehaves ---


@pytest.mark.parametrize(
    "poisoned", [[0], [63], [31, 32], [5, 17, 40], list(range(0, 64, 4)), list(range(64))], ids=len
)
async def test_only_the_poisoned_requests_fail(bench: Bench, poisoned: list[int]) -> None:
    """Of 64 one-row requests in one batch exactly the k poisoned fail, the others get what they
    would get alone, and it costs little:

    at most k * log2(64) halvings of two runs each, and never more than two runs per request.
    """
    batcher = bench.batcher()
    bench.model.poison = set(poisoned)

    jobs = [batcher.submit(rows_of(number), 1) for number in range(64)]
    await batcher.drain()

    outcomes = [outcome(job) for job in jobs]
    assert [number for number, got in enumerate(outcomes) if isinstance(got, RunError)] == poisoned
    assert all(
        got == answers(number) for number, got in enumerate(outcomes) if number not in poisoned
    )
    extra_runs = len(bench.model.runs) - 1
    [(rows, halvings)] = bench.watch.batches
    assert rows == 64
    assert extra_runs == 2 * halvings
    assert halvings <= min(len(poisoned) * log2(64), 63)


async def test_a_failure_names_its_cause(bench: Bench) -> None:
    """RunError carries what the model raised, so that the log says why."""
    bench.model.poison = {1}

    with pytest.raises(RunError, match="failed on these rows") as caught:
        await bench.batcher().infer(rows_of(1), 1)

    assert isinstance(caught.value.__cause__, ValueError)


async def test_a_wrong_number_of_results_is_never_handed_out(bench: Bench) -> None:
    """A model that gives a result too many fails the request that caused it; nobody gets a
    neighbour's answer."""
    batcher = bench.batcher()
    bench.model.too_long = {2}

    jobs = [batcher.submit(rows_of(*ids), len(ids)) for ids in ([1], [2, 3], [4, 5, 6])]
    await batcher.drain()

    with pytest.raises(RunError, match="3 results for 2 rows"):
        jobs[1].future.result()
    assert (jobs[0].future.result(), jobs[2].future.result()) == (answers(1), answers(4, 5, 6))


@pytest.mark.parametrize("results", [[], [1], [1, 2, 3], None, 7])
async def test_a_result_of_any_wrong_shape_is_a_run_error(bench: Bench, results: Any) -> None:
    """Too few, too many, or nothing countable: each is this request's RunError, and the batcher
    goes on."""
    batcher: Batcher[int] = Batcher(
        lambda _payload, rows: results if rows == 2 else answers(9),
        executor=bench.thread,
        observer=bench.watch,
    )

    with pytest.raises(RunError):
        await batcher.infer(rows_of(1, 2), 2)

    assert await batcher.infer(rows_of(9), 1) == answers(9)


async def test_a_model_that_fails_in_shared_batches_only_fails_no_request(bench: Bench) -> None:
    """If the halves of a failed batch succeed, everyone is answered."""
    batcher: Batcher[int] = Batcher(solo_only, executor=bench.thread, observer=bench.watch)

    assert await asyncio.gather(*[batcher.infer(rows_of(number), 1) for number in range(5)]) == [
        answers(number) for number in range(5)
    ]


def solo_only(payload: bytes, rows: int) -> list[int]:
    """A model without memory for two rows."""
    if rows > 1:
        raise MemoryError
    return answers(*array("I", payload))


async def test_a_failed_run_teaches_no_cost(bench: Bench) -> None:
    """An expensive model that fails immediately does not look cheap afterwards: the next batch
    still goes to the thread."""
    cost = learned(EXPENSIVE)
    batcher = bench.batcher(cost=cost)
    bench.model.poison = {1}
    batcher.submit(rows_of(1), 1).future.add_done_callback(lambda future: future.exception())
    await turns(1)
    await bench.thread.finish()

    assert cost.predict(1) == pytest.approx(EXPENSIVE)


async def test_a_halved_batch_teaches_no_cost(bench: Bench) -> None:
    """The time of a batch and all its halves is not the time of a batch."""
    cost = learned(EXPENSIVE)
    batcher = bench.batcher(row_seconds=EXPENSIVE, cost=cost)
    bench.model.poison = {1}
    jobs = [batcher.submit(rows_of(number), 1) for number in range(8)]
    await turns(1)
    await bench.thread.finish()

    assert [type(outcome(job)) for job in jobs] == [list, RunError] + [list] * 6
    assert cost.predict(8) == pytest.approx(8 * EXPENSIVE)


@pytest.mark.parametrize("error", [ValueError, SystemExit, asyncio.CancelledError])
async def test_whatever_the_thread_dies_of_fails_its_batch_alone(
    bench: Bench, error: type[BaseException]
) -> None:
    """An exception in the inference thread, of any kind, is this batch's RunError; the next batch
    runs."""
    batcher = bench.batcher(row_seconds=EXPENSIVE)
    bench.model.poison, bench.model.raises = {1}, error
    failing = batcher.submit(rows_of(1), 1)
    await turns(1)
    waiting = batcher.submit(rows_of(2), 1)

    await bench.thread.finish()
    assert isinstance(failing.future.exception(), RunError)
    await bench.thread.finish()

    assert waiting.future.result() == answers(2)


async def test_a_run_stopped_on_the_loop_leaves_nobody_waiting(bench: Bench) -> None:
    """Should a run on the loop end in a CancelledError, its requests fail, those it answered keep
    their answers, and the next run."""
    heard: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: heard.append(context))
    batcher = bench.batcher(max_batch_size=2)
    bench.model.poison, bench.model.raises = {1}, asyncio.CancelledError

    jobs = [batcher.submit(rows_of(number), 1) for number in (0, 1, 2)]
    await batcher.drain()

    assert [type(outcome(job)) for job in jobs] == [RunError, RunError, list]
    assert isinstance(heard[0]["exception"], asyncio.CancelledError)
    assert batcher.queued_rows == 0


async def test_a_shut_down_executor_fails_the_rows_that_wait(bench: Bench) -> None:
    """When the thread is gone, each waiting request gets RunError: small ones, bulk ones, none is
    left pending."""
    cost = learned(EXPENSIVE)
    batcher = bench.batcher(row_seconds=EXPENSIVE, cost=cost, max_batch_size=2)
    busy = batcher.submit(rows_of(0), 1)
    await turns(1)
    jobs = [batcher.submit(rows_of(*ids), len(ids)) for ids in ([1], [2, 3], [4, 5, 6, 7, 8])]

    bench.thread.shutdown()
    await bench.thread.finish()
    await batcher.drain()

    assert busy.future.result() == answers(0)
    assert all(isinstance(job.future.exception(), RunError) for job in jobs)
    assert batcher.queued_rows == 0
    assert cost.predict(1) == pytest.approx(EXPENSIVE)


async def test_work_that_the_pool_drops_fails_its_requests(bench: Bench) -> None:
    """A batch that a shutdown cancels before it starts fails, with the rows behind it."""
    batcher = bench.batcher(row_seconds=EXPENSIVE)
    handed_over = batcher.submit(rows_of(0), 1)
    await turns(1)
    behind = batcher.submit(rows_of(1), 1)

    bench.thread.shutdown(cancel_futures=True)
    await batcher.drain()

    assert all(isinstance(job.future.exception(), RunError) for job in (handed_over, behind))
    assert str(handed_over.future.exception()) == "the run was stopped"
    assert bench.model.runs == []


async def test_a_failed_run_says_what_failed_and_keeps_the_cause(bench: Bench) -> None:
    """The message is the batcher's, the cause the model's."""
    batcher = bench.batcher()
    bench.model.poison = {1}
    job = batcher.submit(rows_of(1), 1)
    await batcher.drain()

    error = job.future.exception()
    assert str(error) == "the model failed on these rows"
    assert repr(error.__cause__) == "ValueError('poison')"


async def test_the_rows_of_a_leaver_are_let_go(bench: Bench) -> None:
    """Though its job stays in the queue behind a busy model, its bytes do not."""
    batcher = bench.batcher(row_seconds=EXPENSIVE)
    batcher.submit(rows_of(0), 1)
    await turns(1)
    left = batcher.submit(rows_of(1, 2), 2)

    batcher.forget(left)

    assert left.payload == b""
    await bench.thread.finish()


# --- Limits: what is refused, and what is too old ---


async def test_a_full_queue_refuses_at_once(bench: Bench) -> None:
    """max_queue_size counts rows; what would exceed it is refused without waiting and nothing of it
    is queued."""
    batcher = bench.batcher(max_queue_size=5)
    accepted = batcher.submit(rows_of(1, 2, 3), 3)

    with pytest.raises(Overloaded, match="3 rows are waiting, of 5 at most"):
        batcher.submit(rows_of(4, 5, 6), 3)
    assert batcher.queued_rows == 3
    last = batcher.submit(rows_of(7, 8), 2)
    await batcher.drain()

    assert accepted.future.result() == answers(1, 2, 3)
    assert last.future.result() == answers(7, 8)
    with pytest.raises(Overloaded):
        batcher.submit(rows_of(*range(6)), 6)


async def test_a_leaver_makes_room(bench: Bench) -> None:
    """The rows of a cancelled request count no more against the limit."""
    batcher = bench.batcher(max_queue_size=2)
    batcher.forget(batcher.submit(rows_of(1, 2), 2))

    assert await batcher.infer(rows_of(3, 4), 2) == answers(3, 4)


async def test_a_wait_that_is_predicted_too_long_is_refused(bench: Bench) -> None:
    """At 0.1 s a row and a timeout of 1.05 s, ten waiting rows let another in and eleven do not."""
    batcher = bench.batcher(row_seconds=EXPENSIVE, queue_timeout_s=1.05)
    batcher.submit(rows_of(0), 1)
    await turns(1)  # its run has begun: it waits no more

    batcher.submit(rows_of(*range(10)), 10)
    batcher.submit(rows_of(10), 1)
    with pytest.raises(Overloaded, match=r"11 rows are waiting, more than are run in 1\.05 s"):
        batcher.submit(rows_of(11), 1)

    assert batcher.queued_rows == 11


async def test_rows_that_ran_alone_say_nothing_about_full_batches(bench: Bench) -> None:
    """Single rows for hours at 10 ms a run: 2,000 rows are not predicted to take 20 s, but what
    their full batches take by the warm-up, 0.36 s."""
    cost = learned(0.0001, batch_seconds=0.01)
    for _ in range(5000):
        cost.learn(1, 0.0101)
        cost.predict(1)
    batcher = bench.batcher(cost=cost, queue_timeout_s=5.0)
    batcher.submit(rows_of(*range(2000)), 2000)
    batcher.submit(rows_of(2000), 1)

    assert batcher.expected_wait_s > 5.0
    assert batcher.queued_rows == 2001


async def test_a_small_request_does_not_wait_for_the_rows_of_large_ones(bench: Bench) -> None:
    """They are run in between: 1,000 rows of 0.1 s refuse another large request, and a small one
    only behind as many small ones as it may wait for, and the large batches in between."""
    batcher = bench.batcher(row_seconds=EXPENSIVE, max_batch_size=10, queue_timeout_s=5.01)
    batcher.submit(rows_of(*range(1000)), 1000)
    with pytest.raises(Overloaded, match=r"1000 rows are waiting, more than are run in 5\.01 s"):
        batcher.submit(rows_of(*range(1000, 1020)), 20)
    for number in range(2000, 2041):
        batcher.submit(rows_of(number), 1)

    with pytest.raises(Overloaded, match=r"41 rows are waiting, more than are run in 5\.01 s"):
        batcher.submit(rows_of(2041), 1)


async def test_what_waited_too_long_is_never_run(bench: Bench) -> None:
    """A request older than queue_timeout_s gets QueueTimeout when it is taken from the queue; a
    younger one behind it is run."""
    batcher = bench.batcher(row_seconds=EXPENSIVE, queue_timeout_s=5.0)
    busy = batcher.submit(rows_of(0), 1)
    await turns(1)
    old = batcher.submit(rows_of(1, 2), 2)
    bench.clock.advance(4.0)
    young = batcher.submit(rows_of(3), 1)
    bench.clock.advance(1.4)

    await bench.thread.finish()
    await bench.thread.finish()

    assert busy.future.result() == answers(0)
    with pytest.raises(QueueTimeout, match=r"waited 5\.5 s in the queue, of 5 s at most"):
        old.future.result()
    assert young.future.result() == answers(3)
    assert bench.model.runs == [[0], [3]]
    assert bench.watch.waits == [0.0, pytest.approx(5.5), pytest.approx(1.5)]
    assert batcher.queued_rows == 0


async def test_a_bulk_request_is_timed_to_its_first_piece(bench: Bench) -> None:
    """Bulk that has begun is finished however long that takes; bulk that has not begun in time
    never begins."""
    bench.model.row_seconds = 2.0
    batcher = bench.batcher(max_batch_size=2, queue_timeout_s=5.0, inline_budget_s=99.0)

    begun, late = (
        batcher.submit(rows_of(1, 2, 3, 4, 5, 6), 6),
        batcher.submit(rows_of(10, 11, 12), 3),
    )
    bench.clock.advance(2.0)
    await batcher.drain()

    assert begun.future.result() == answers(1, 2, 3, 4, 5, 6)
    assert isinstance(late.future.exception(), QueueTimeout)
    assert bench.model.runs == [[1, 2], [3, 4], [5, 6]]


async def test_a_queue_that_stands_is_cut_to_its_newest_requests(bench: Bench) -> None:
    """The oldest are refused when it has stood for half a second, new ones at once; what is left is
    run, and then all is accepted again."""
    batcher = bench.batcher(row_seconds=EXPENSIVE, max_batch_size=1, queue_target_s=0.1)
    jobs = [batcher.submit(rows_of(number), 1) for number in range(40)]
    await turns(1)
    assert not batcher.refuses_small()
    while not jobs[20].future.done():
        await bench.thread.finish()
    while not batcher.refuses_small():
        jobs.append(batcher.submit(rows_of(len(jobs)), 1))
    assert len(jobs) < 50
    with pytest.raises(Overloaded, match="requests are waiting"):
        batcher.submit(rows_of(99), 1)
    while bench.thread.waiting:
        await bench.thread.finish()

    results = [outcome(job) for job in jobs]
    refused = [i for i, result in enumerate(results) if isinstance(result, Overloaded)]
    first = refused[:25]  # at once; later a slow window may let one fewer wait
    assert first == list(range(first[0], first[0] + 25))
    assert 4 < first[0] < 10
    assert len(jobs) - 1 not in refused
    assert all(results[i] == answers(i) for i in range(len(jobs)) if i not in refused)
    assert batcher.queued_rows == 0
    assert not batcher.refuses_small()


async def test_rows_are_not_run_after_their_deadline(bench: Bench) -> None:
    """Neither those that wait, nor what is left of a bulk request that has begun; rows behind them
    are run."""
    batcher = bench.batcher(row_seconds=EXPENSIVE, max_batch_size=2)
    now = bench.clock.now
    first = batcher.submit(rows_of(0), 1)
    await turns(1)
    jobs: list[Job[int]] = [
        Job(rows_of(*ids), len(ids), asyncio.get_running_loop().create_future(), deadline)
        for ids, deadline in (((1,), now + 0.05), ((2,), now + 9.0), ((3, 4, 5), now + 0.35))
    ]
    for job in jobs:
        batcher.enqueue(job)
    while bench.thread.waiting:
        await bench.thread.finish()

    assert first.future.result() == answers(0)
    late, in_time, bulk = (outcome(job) for job in jobs)
    assert isinstance(late, DeadlineExceeded)
    assert in_time == answers(2)
    assert isinstance(bulk, DeadlineExceeded)
    assert bench.model.runs == [[0], [2], [3, 4]]
    assert batcher.queued_rows == 0


# --- Threads: where a batch runs ---


async def test_cheap_batches_run_on_the_loop_and_expensive_ones_in_the_thread(bench: Bench) -> None:
    """A batch goes to the thread exactly when it is predicted to exceed the inline budget."""
    batcher = bench.batcher(row_seconds=CHEAP, inline_budget_s=0.000505)

    cheap = batcher.submit(rows_of(*range(50)), 50)
    await turns(1)
    assert cheap.future.done()
    assert not bench.thread.waiting
    expensive = batcher.submit(rows_of(*range(51)), 51)
    await turns(1)
    assert not expensive.future.done()
    await bench.thread.finish()

    assert expensive.future.result() == answers(*range(51))


async def test_a_run_that_was_held_up_does_not_count_as_expensive(bench: Bench) -> None:
    """A spent CPU quota stops the clock's hands, not the CPU's: the next batch stays on the
    loop."""
    cpu = Clock()
    batcher = bench.batcher(row_seconds=CHEAP, inline_budget_s=0.000505, cpu_clock=cpu)
    bench.model.row_seconds = 1.0
    for number in range(10):
        job = batcher.submit(rows_of(number), 1)
        await turns(1)
        assert job.future.done()
    assert not bench.thread.waiting


async def test_an_unknown_cost_is_learned_by_running(bench: Bench) -> None:
    """The first batch ever runs on the loop; once it proved expensive, the next goes to the
    thread."""
    bench.model.row_seconds = EXPENSIVE
    batcher = bench.batcher()

    first = batcher.submit(rows_of(1), 1)
    await turns(1)
    assert first.future.done()
    second = batcher.submit(rows_of(2), 1)
    await turns(1)
    assert not second.future.done()
    await bench.thread.finish()

    assert second.future.result() == answers(2)


async def test_arrivals_gather_while_the_thread_is_busy(bench: Bench) -> None:
    """What arrives during a run in the thread waits, over any number of turns, and is the next
    batch as a whole."""
    batcher = bench.batcher(row_seconds=EXPENSIVE)
    batcher.submit(rows_of(0), 1)
    await turns(1)

    for number in range(1, 9):
        batcher.submit(rows_of(number), 1)
        await turns(2)
    assert len(bench.thread.waiting) == 1
    await bench.thread.finish()
    await bench.thread.finish()

    assert bench.model.runs == [[0], [1, 2, 3, 4, 5, 6, 7, 8]]


async def test_a_real_thread_and_no_blocking_call_on_the_loop(
    pool: Executor, no_blocking: None
) -> None:
    """With a pool of one real thread, batches that sleep block the thread and never the loop."""
    batcher: Batcher[int] = Batcher(
        sleepy, executor=pool, observer=Watch(), cost=learned(EXPENSIVE), queue_timeout_s=99.0
    )

    got = await asyncio.gather(
        *[batcher.infer(rows_of(number, number + 1), 2) for number in range(200)]
    )

    assert got == [answers(number, number + 1) for number in range(200)]


async def test_a_blocking_model_on_the_loop_would_be_noticed(no_blocking: None) -> None:
    """The guard of the test above is awake: the same model, believed to be cheap, is caught on the
    loop."""
    batcher: Batcher[int] = Batcher(sleepy, executor=Thread(), observer=Watch())

    with pytest.raises(RunError) as caught:
        await batcher.infer(rows_of(1), 1)

    assert isinstance(caught.value.__cause__, BlockingError)


def sleepy(payload: bytes, _rows: int) -> list[int]:
    """A model that blocks its thread."""
    time.sleep(0.001)
    return answers(*array("I", payload))


@pytest.fixture
def pool() -> Iterator[Executor]:
    """One real inference thread."""
    with ThreadPoolExecutor(1) as pool:
        yield pool


@pytest.fixture
def no_blocking() -> Iterator[None]:
    """A blocking call under a running loop raises."""
    with blockbuster_ctx():
        yield


async def test_a_job_tells_where_its_time_went(bench: Bench) -> None:
    """A job knows how long its first row waited, and how long the batches took that its rows rode
    in, mates and pieces included."""
    bench.model.row_seconds = 0.5
    batcher = bench.batcher(max_batch_size=2, inline_budget_s=99.0)
    jobs = [batcher.submit(rows_of(*ids), len(ids)) for ids in ([1], [2], [3, 4, 5])]
    bench.clock.advance(0.25)

    await batcher.drain()

    assert [(job.waited_s, job.ran_s) for job in jobs] == [(0.25, 1.0), (0.25, 1.0), (1.25, 1.5)]


# --- The end: drain, and nothing left behind ---


async def test_drain_waits_for_all_and_wakes_everyone_who_drains(bench: Bench) -> None:
    """Several drains end when the last row is answered, in the thread too, and not before."""
    batcher = bench.batcher(row_seconds=EXPENSIVE, max_batch_size=2)
    jobs = [batcher.submit(rows_of(*ids), len(ids)) for ids in ([1], [2, 3, 4])]
    drains = [asyncio.ensure_future(batcher.drain()) for _ in range(3)]

    for _ in range(3):
        await turns(2)
        assert not any(drain.done() for drain in drains)
        await bench.thread.finish()
    await asyncio.gather(*drains)

    assert all(job.future.done() for job in jobs)
    await batcher.drain()


async def test_cancelling_one_drain_stops_only_that_waiting(bench: Bench) -> None:
    """A drain that gives up disturbs neither the rows nor the other drains."""
    batcher = bench.batcher(row_seconds=EXPENSIVE)
    job = batcher.submit(rows_of(1), 1)
    impatient, patient = (
        asyncio.ensure_future(batcher.drain()),
        asyncio.ensure_future(batcher.drain()),
    )
    await turns(2)

    impatient.cancel()
    await turns(2)
    assert impatient.cancelled()
    assert not patient.done()
    await bench.thread.finish()
    await patient

    assert job.future.result() == answers(1)


async def test_drain_waits_for_rows_that_arrive_meanwhile(bench: Bench) -> None:
    """A drain ends when the batcher is idle, not when the rows it found are answered."""
    batcher = bench.batcher(row_seconds=EXPENSIVE)
    batcher.submit(rows_of(1), 1)
    drain = asyncio.ensure_future(batcher.drain())
    await turns(2)
    late = batcher.submit(rows_of(2), 1)

    await bench.thread.finish()
    assert not drain.done()
    await bench.thread.finish()
    await drain

    assert late.future.result() == answers(2)


async def test_drain_goes_on_when_an_answer_brings_the_next_request(bench: Bench) -> None:
    """A client that sends its next request the moment it is answered is waited for, though the
    queue was empty in between."""
    batcher = bench.batcher(row_seconds=EXPENSIVE)
    later: list[Job[int]] = []
    batcher.submit(rows_of(1), 1).future.add_done_callback(
        lambda _done: later.append(batcher.submit(rows_of(2), 1))
    )
    drain = asyncio.ensure_future(batcher.drain())
    await turns(2)

    await bench.thread.finish()
    await turns(3)
    assert not drain.done()
    await bench.thread.finish()
    await drain

    assert later[0].future.result() == answers(2)


async def test_a_batcher_can_be_drained_again(bench: Bench) -> None:
    """A drained batcher still serves, and a second drain waits like the first."""
    batcher = bench.batcher()
    for number in range(3):
        job = batcher.submit(rows_of(number), 1)
        await batcher.drain()
        assert job.future.result() == answers(number)
    last = batcher.submit(rows_of(9), 1)
    await turns(2)
    assert last.future.done()
    assert batcher._idle is None


async def test_drain_of_an_idle_or_forgotten_queue_ends(bench: Bench) -> None:
    """Nothing to wait for is no wait, and a queue of leavers is soon empty."""
    batcher = bench.batcher()
    await batcher.drain()
    batcher.forget(batcher.submit(rows_of(1), 1))

    await batcher.drain()

    assert bench.model.runs == []


async def test_nothing_is_retained_after_idle(bench: Bench) -> None:
    """Payloads and futures of answered, failed, cancelled and expired requests are freed; only
    numbers are left."""
    batcher = bench.batcher(row_seconds=EXPENSIVE, max_batch_size=3)
    bench.model.poison = {5}
    watched: list[weakref.ref[Any]] = []
    for ids in ([1], [2, 3], [4, 5], [6, 7, 8, 9, 10], [11]):
        payload: Any = memoryview(rows_of(*ids))  # can be watched being freed, as bytes cannot
        job = batcher.submit(payload, len(ids))
        job.future.add_done_callback(lambda future: future.cancelled() or future.exception())
        watched += [weakref.ref(payload), weakref.ref(job.future)]
    batcher.forget(job)
    del payload, job
    await turns(1)
    while bench.thread.waiting:
        bench.clock.advance(2.0)
        await bench.thread.finish()
    await batcher.drain()

    gc.collect()

    assert [ref() for ref in watched] == [None] * 10
    assert not any([batcher._small, batcher._bulk, batcher._scheduled, batcher._idle])


# --- Cost: what a batch is predicted to take ---


def test_cost_knows_nothing_at_first() -> None:
    """Before the first batch every prediction is 0."""
    cost = Cost()

    assert (cost.predict(1), cost.predict(1000), cost.row_seconds) == (0.0, 0.0, 0.0)


def test_cost_learns_a_line_exactly() -> None:
    """From batches that take a + b·rows it predicts a + b·rows for every size."""
    cost = Cost()
    for rows in (1, 7, 128, 30, 2, 64):
        cost.learn(rows, 0.002 + 0.0003 * rows)

    for rows in (1, 5, 128, 1000):
        assert cost.predict(rows) == pytest.approx(0.002 + 0.0003 * rows, rel=1e-9)


def test_cost_forgets() -> None:
    """After a few hundred batches at a new cost the old one is gone."""
    cost = Cost()
    for rows in (1, 128) * 50:
        cost.learn(rows, 0.5)
    for rows in (1, 128) * 300:
        cost.learn(rows, 0.001 * rows)

    assert cost.predict(64) == pytest.approx(0.064, rel=0.01)
    assert cost.row_seconds == pytest.approx(0.001, rel=0.01)


def test_cost_keeps_the_slope_while_one_size_is_seen() -> None:
    """Thousands of single rows change what a run costs, and not what a row more costs."""
    cost = learned(0.0003, batch_seconds=0.002)
    for _ in range(5000):
        cost.learn(1, 0.0043)
        cost.predict(1)

    assert cost.predict(1) == pytest.approx(0.0043)
    assert cost.predict(128) == pytest.approx(0.0043 + 127 * 0.0003, rel=0.1)


def test_cost_with_one_size_seen_is_proportional_above_it() -> None:
    """One size gives no line: twice the rows are expected to take twice as long, fewer rows as long
    as what was seen."""
    cost = Cost()
    for _ in range(10):
        cost.learn(8, 0.004)

    assert cost.predict(8) == pytest.approx(0.004)
    assert cost.predict(80) == pytest.approx(0.04)
    assert cost.predict(1) == pytest.approx(0.004)
    assert cost.row_seconds == pytest.approx(0.0005)


def test_cost_is_never_negative_and_never_falls_with_rows() -> None:
    """Noise that makes large batches look cheaper than small ones does not make a prediction
    sink."""
    cost = Cost()
    cost.learn(1, 0.9)
    cost.learn(100, 0.1)

    assert 0.0 <= cost.predict(1) <= cost.predict(100) <= cost.predict(10_000)

    steep = Cost()
    steep.learn(100, 0.1)
    steep.learn(128, 1.0)
    assert steep.predict(1) == 0.0
