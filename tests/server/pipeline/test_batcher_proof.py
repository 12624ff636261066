"""The proof of the batcher: rows by the million, and not one misrouted, lost or answered twice.

Two hundred producers send requests of one row, of several, and of more than a batch holds, to an
engine that answers each row with its hash. A fifth of the requests is cancelled at a random point,
one run in a hundred raises for no reason, one in a thousand gives a result too many or too few,
some rows do either whenever they are run, and batches run on the loop and in a real thread. Every
answer is compared with the hash; the engine counts how often it answered each row, and remembers
whom it failed alone.

As a test it takes fifty thousand rows. As a program:

    uv run python tests/server/pipeline/test_batcher_proof.py --rows 1000000 --seed 1

The seed decides what is sent, cancelled and broken; how the thread interleaves with the loop is the
machine's.
"""

import argparse
import asyncio
import sys
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from random import Random
from threading import get_ident
from time import perf_counter, time_ns

from halfcore.pipeline.batcher import Batcher
from halfcore.pipeline.jobs import Overloaded, RunError

PRODUCERS = 200
CANCELLED, RAISING, MISCOUNTING = 0.2, 0.01, 0.001  # of requests, runs, runs
POISON_EVERY, MISCOUNT_EVERY = 2_000, 10_000  # rows
MAX_BATCH, MAX_QUEUE = 32, 1_000
ROW_SECONDS, INLINE_BUDGET_S = (
    1e-5,
    2e-4,
)  # on the engine's own clock: above about 20 rows a batch goes to the thread


class Engine:
    """An echo model that breaks now and then, keeps its own time, and counts what it answered."""

    def __init__(self, rows: int, seed: int) -> None:
        self.random = Random(seed)  # noqa: S311  repeatable, not secret
        self.seed = seed
        self.answered = bytearray(rows)
        self.broken: dict[
            int, int
        ] = {}  # first and last row of a run that broke; a rerun of its halves overwrites it
        self.seconds = 0.0
        self.threads: Counter[int] = Counter()
        self.raised = self.miscounted = self.poisoned = 0

    def clock(self) -> float:
        """Its own time, which makes the choice between loop and thread the same on every
        machine."""
        return self.seconds

    def answer(self, row: int) -> int:
        """What it says of a row."""
        return hash((self.seed, row))

    def run(self, payload: bytes, rows: int) -> Sequence[int]:
        """Answer rows, or break."""
        ids = array("Q", payload)
        self.seconds += rows * ROW_SECONDS
        self.threads[get_ident()] += 1
        self.broken[ids[0]] = ids[-1]
        results = [self.answer(row) for row in ids]
        if any(result % POISON_EVERY == 0 for result in results):
            self.poisoned += 1
            raise ValueError("poison")
        fate = self.random.random()
        if fate < RAISING:
            self.raised += 1
            raise ValueError("planted")
        if fate < RAISING + MISCOUNTING or any(result % MISCOUNT_EVERY == 1 for result in results):
            self.miscounted += 1
            return results[1:] if self.random.random() < 0.5 else [0, *results]
        del self.broken[ids[0]]
        for row in ids:
            self.answered[row] += 1
        return results

    def broke_alone(self, ids: range) -> bool:
        """Whether a run of only these rows broke."""
        return any(self.broken.get(row, ids[-1] + 1) <= ids[-1] for row in ids)

    def queued(self, seconds: float) -> None:
        """Waits are not of interest here."""

    def ran(self, rows: int, seconds: float, bisections: int) -> None:
        """Nor are batches."""


@contextmanager
def frequent_switches() -> Iterator[None]:
    """Let thread and loop interrupt each other anywhere; at the usual 5 ms the thread would starve
    next to a busy loop."""
    usual_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        yield
    finally:
        sys.setswitchinterval(usual_s)


async def pause(turns: int) -> None:
    """Let the loop turn."""
    for _ in range(turns):
        await asyncio.sleep(0)


class Proof:
    """One run of the proof and its counts.

    Args:
        rows: how many rows to send.
        seed: decides what is sent, cancelled and broken.
        progress: called with the number of rows that were answered.
    """

    def __init__(
        self, rows: int, seed: int, progress: Callable[[int], None] = lambda _rows: None
    ) -> None:
        self.rows = rows
        self.seed = seed
        self.progress = progress
        self.random = Random(seed)  # noqa: S311  repeatable, not secret
        self.engine = Engine(rows, seed)
        self.sent = 0
        self.counts = Counter[str]()
        self.elapsed_s = 0.0

    @property
    def flaws(self) -> dict[str, int]:
        """What must all be 0."""
        return {
            name: self.counts[name]
            for name in (
                "misrouted",
                "lost",
                "duplicated",
                "blamed for nothing",
                "pending",
                "tasks left",
                "rows left in the queue",
            )
        }

    async def run(self) -> None:
        """Send all rows, wait for all answers, count."""
        started = perf_counter()
        tasks_before = len(asyncio.all_tasks())
        with ThreadPoolExecutor(1) as pool, frequent_switches():
            batcher: Batcher[int] = Batcher(
                self.engine.run,
                executor=pool,
                observer=self.engine,
                max_batch_size=MAX_BATCH,
                max_queue_size=MAX_QUEUE,
                queue_timeout_s=1e9,
                inline_budget_s=INLINE_BUDGET_S,
                clock=self.engine.clock,
                cpu_clock=self.engine.clock,
            )
            async with asyncio.timeout(60 + self.rows / 5_000):
                await asyncio.gather(*[self.produce(batcher) for _ in range(PRODUCERS)])
                await batcher.drain()
            self.counts["rows left in the queue"] = batcher.queued_rows
        self.counts["duplicated"] = sum(count > 1 for count in self.engine.answered)
        self.counts["requests"] = sum(
            self.counts[name] for name in ("answered", "cancelled", "failed")
        )
        self.counts["lost"] += self.rows - self.counts["rows accounted for"]
        self.counts["tasks left"] = len(asyncio.all_tasks()) - tasks_before
        self.elapsed_s = perf_counter() - started

    async def produce(self, batcher: Batcher[int]) -> None:
        """Send requests, one after the other, until all rows are sent."""
        while self.sent < self.rows:
            first = self.sent
            self.sent = min(self.rows, first + self.size())
            ids = range(first, self.sent)
            await pause(self.random.choice([0, 0, 1, 2, 5, 20, 80]))
            await self.request(batcher, ids)
            self.counts["rows accounted for"] += len(ids)
            self.progress(len(ids))

    def size(self) -> int:
        """Mostly one row, often several, sometimes more than a batch."""
        kind = self.random.random()
        return (
            1
            if kind < 0.7
            else self.random.randint(2, MAX_BATCH // 4)
            if kind < 0.98
            else self.random.randint(MAX_BATCH, 5 * MAX_BATCH)
        )

    async def request(self, batcher: Batcher[int], ids: range) -> None:
        """Send one request, again as long as the queue is full, and check the answer."""
        payload = array("Q", ids).tobytes()
        leaves = self.random.random() < CANCELLED
        while True:
            task = asyncio.ensure_future(batcher.infer(payload, len(ids)))
            if leaves:
                await self.cancel_somewhere(task)
            await asyncio.wait([task])
            if task.cancelled() or not isinstance(task.exception(), Overloaded):
                break
            self.counts["refused"] += 1
            await asyncio.sleep(0.001)  # as a client that heeds Retry-After
        self.judge(task, ids, leaves)

    async def cancel_somewhere(self, task: "asyncio.Task[Sequence[int]]") -> None:
        """Cancel before the request is queued, while it waits, while it runs, or, for some, after
        its answer."""
        await pause(self.random.choice([0, 1, 1, 2, 2, 3, 5, 8, 13]))
        task.cancel()

    def judge(self, task: "asyncio.Task[Sequence[int]]", ids: range, leaves: bool) -> None:
        """Compare with what the engine says of these rows, and with what it broke."""
        if not task.done():
            self.counts["pending"] += 1
        elif task.cancelled():
            self.counts["cancelled" if leaves else "lost"] += 1
        elif (error := task.exception()) is None:
            self.counts["answered"] += 1
            self.counts["misrouted"] += list(task.result()) != [
                self.engine.answer(row) for row in ids
            ]
            self.counts["lost"] += sum(self.engine.answered[row] == 0 for row in ids)
        elif isinstance(error, RunError):
            self.counts["failed"] += 1
            self.counts["blamed for nothing"] += not self.engine.broke_alone(ids)
        else:
            self.counts["lost"] += 1

    def report(self) -> str:
        """What was done and what was found, in lines."""
        loop_runs = self.engine.threads[get_ident()]
        thread_runs = self.engine.threads.total() - loop_runs
        done = ", ".join(
            f"{self.counts[name]:,} {name}"
            for name in ("answered", "cancelled", "failed", "refused")
        )
        flaws = ", ".join(f"{count} {name}" for name, count in self.flaws.items())
        return (
            f"{self.rows:,} rows in {self.counts['requests']:,} requests, seed {self.seed}, "
            f"{self.elapsed_s:.1f} s: {done}\n"
            f"{loop_runs:,} runs on the loop, {thread_runs:,} in the thread: "
            f"{self.engine.poisoned:,} poisoned, {self.engine.raised:,} raised, "
            f"{self.engine.miscounted:,} miscounted\n"
            f"{flaws}"
        )


async def test_of_fifty_thousand_rows_none_is_misrouted_lost_or_answered_twice() -> None:
    """Under cancellations, failures and wrong counts, on the loop and in the thread, every request
    ends once and as it should."""
    proof = Proof(rows=50_000, seed=20)

    await proof.run()

    assert not any(proof.flaws.values()), proof.report()
    happened = [proof.counts[name] for name in ("answered", "cancelled", "failed", "refused")]
    assert (
        min(*happened, proof.engine.raised, proof.engine.miscounted, proof.engine.poisoned) > 0
    ), proof.report()
    on_the_loop = proof.engine.threads[get_ident()] / proof.engine.threads.total()
    assert 0.1 < on_the_loop < 0.9, proof.report()


def main() -> int:
    """Run the proof and print the verdict.

    Returns:
        0 if every count that must be 0 is 0, else 1.
    """
    from rich.console import Console  # only the program draws
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument(
        "--rows", type=int, default=1_000_000, help="how many rows to send (default: %(default)s)"
    )
    arguments.add_argument(
        "--seed",
        type=int,
        default=time_ns() % 10**6,
        help="repeats a run (default: random, printed)",
    )
    options = arguments.parse_args()

    console = Console()
    with Progress(
        TextColumn("rows"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
    ) as bar:
        task = bar.add_task("rows", total=options.rows)
        proof = Proof(options.rows, options.seed, lambda rows: bar.advance(task, rows))
        asyncio.run(proof.run())
    console.print(proof.report(), highlight=False, soft_wrap=True)
    proven = not any(proof.flaws.values())
    console.print(
        "[bold green]proven[/]"
        if proven
        else f"[bold red]refuted[/]: repeat with --seed {proof.seed}"
    )
    return 0 if proven else 1


if __name__ == "__main__":
    sys.exit(main())
