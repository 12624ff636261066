"""Errors of ordering, planted into the real parts: each must be found, or the simulation proves
nothing."""

from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextlib import contextmanager
from io import BytesIO
from itertools import count
from typing import Any, NamedTuple
from unittest import mock

from halfcore.pipeline.batcher import NO_RUN, Batcher
from halfcore.prediction_log.log import PredictionLog
from halfcore.prediction_log.store import Store as Table
from halfcore.registry.errors import Unavailable
from halfcore.registry.follower import Follower
from halfcore.registry.store import Store
from support.simulated import batching, spooling, swapping
from support.simulated.loop import SeededLoop, Stuck, Wrong, simulate

Scenario = Callable[[SeededLoop], Coroutine[Any, Any, None]]
SCENARIOS: dict[str, Scenario] = {
    "batcher": batching.scenario,
    "swap": swapping.scenario,
    "spool": spooling.scenario,
}
_NUMBERS = count(1)
FAILURES = (Wrong, Stuck, TimeoutError, OSError, AssertionError)
"""What a broken promise may look like from outside."""


class Planted(NamedTuple):
    """One error."""

    part: str
    """Of `SCENARIOS`."""
    cls: type
    method: str
    wrong: Any
    """What stands in place of the method."""


def _lands_late(self: Any, batch: Any, rows: int, done: Any) -> None:
    stopped = done.cancelled() or done.exception() is not None
    self._finish(batch, rows, NO_RUN if stopped else done.result())
    self._running = False


def _wants_all(self: Any, job: Any, now: float) -> bool:
    if job.taken == 0:
        self._observer.queued(now - job.queued_at)
    return True


def _forgets_the_thread(self: Any, flush: Any = Batcher._flush) -> None:
    flush(self)
    self._running = False


async def _reloads_in_between(self: Any) -> str:
    forget = self._resources.store.forget_refusals
    await self._resources.in_thread(forget, self.followed.name)
    try:
        return str(await self.poll())
    except Unavailable:
        return "failed"


def _locks_nothing(self: Any, name: str) -> BytesIO:
    (self._root / name).mkdir(parents=True, exist_ok=True)
    return BytesIO()


async def _changes_over_unguarded(self: Any) -> None:
    if self._spool.empty:
        await self._in_thread(lambda: None)
        self._direct = True
        self._away.clear()


async def _delivers_directly(
    self: Any, *, patience_s: float, deliver: Any = PredictionLog._deliver
) -> None:
    self._direct = True
    await deliver(self, patience_s=patience_s)


async def _writes_below_the_mark(
    self: Any, writer: Any, blocks: Any, *, skip_bad_rows: bool, write: Any = Table._write
) -> Any:
    above = next(_NUMBERS) * 10**6
    whole = [block._replace(first=block.first + above) for block in blocks]
    return await write(self, writer, whole, skip_bad_rows=skip_bad_rows)


PLANTED = {
    "a run that ends wakes nobody": Planted("batcher", Batcher, "_landed", _lands_late),
    "a leaver's rows are run": Planted("batcher", Batcher, "_wanted", _wants_all),
    "two runs at a time": Planted("batcher", Batcher, "_flush", _forgets_the_thread),
    "a reload during a poll": Planted("swap", Follower, "reload", _reloads_in_between),
    "a store without its lock": Planted("swap", Store, "try_lock", _locks_nothing),
    "an unguarded change": Planted(
        "spool", PredictionLog, "_write_directly_again", _changes_over_unguarded
    ),
    "new rows before spooled ones": Planted("spool", PredictionLog, "_deliver", _delivers_directly),
    "a mark that is not read": Planted("spool", Table, "_write", _writes_below_the_mark),
}


@contextmanager
def planted(error: Planted) -> Iterator[None]:
    """The error is there."""
    with mock.patch.object(error.cls, error.method, error.wrong):
        yield


def first_failure(scenario: Scenario, seeds: Iterable[int]) -> tuple[int, str] | None:
    """The first seed whose schedule fails, and how; None if none does."""
    for seed in seeds:
        try:
            simulate(seed, scenario)
        except FAILURES as error:
            return seed, f"{type(error).__name__}: {error}"
    return None
