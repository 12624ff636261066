"""What waits in the batcher: a request's job, its parts in batches, and who is notified.

Nothing here decides anything: `batcher` does.
"""

from collections.abc import Sequence
from math import inf
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

R = TypeVar("R")


class Overloaded(Exception):
    """The queue is full, in rows or in time; nothing was queued."""


class QueueTimeout(Exception):
    """A request waited longer than `queue_timeout_s` for its first batch, and was never run."""


class DeadlineExceeded(Exception):
    """A request's client waits no longer; what was left of its rows was not run."""


class RunError(Exception):
    """The model failed on this request's rows, alone in their batch."""


class Observer(Protocol):
    """Is notified of what the batcher does; called on the event loop."""

    def queued(self, seconds: float) -> None:
        """A request's first row left the queue after this time."""

    def ran(self, rows: int, seconds: float, bisections: int) -> None:
        """A batch of `rows` rows took `seconds`, and was halved `bisections` times because a
        request in it failed."""


class Waiter(Protocol):
    """Receives a job's outcome: an `asyncio.Future`, or an object with these methods of a future.
    They must not raise."""

    def done(self) -> bool:
        """Whether it no longer waits; its job is then not run."""

    def cancel(self) -> object:
        """There will be no outcome."""

    def set_result(self, results: Sequence[Any], /) -> None:
        """One result per row, in order."""

    def set_exception(self, error: Exception, /) -> None:
        """`QueueTimeout`, `DeadlineExceeded` or `RunError`."""


class Job(Generic[R]):
    """One request's rows: how many were taken into batches, their results so far, and the times.

    Args:
        payload: `rows` rows of equal length.
        rows: at least 1.
        future: receives the results, one per row in order.
        deadline: from this time on, by the batcher's clock, its rows are not run.

    Attributes:
        waited_s: seconds until its first row left the queue.
        ran_s: seconds of the batches that its rows were in.
    """

    __slots__ = (
        "deadline",
        "future",
        "payload",
        "queued_at",
        "ran_s",
        "results",
        "rows",
        "taken",
        "waited_s",
    )

    def __init__(self, payload: bytes, rows: int, future: Waiter, deadline: float = inf) -> None:
        self.payload = payload
        self.rows = rows
        self.future: Any = future
        self.deadline = deadline
        self.queued_at = 0.0
        self.taken = 0
        self.waited_s = 0.0
        self.ran_s = 0.0
        self.results: list[R] | None = None


class Part(Generic[R]):
    """The rows of one job that are in one batch."""

    __slots__ = ("failure", "job", "payload", "results", "rows")

    def __init__(self, job: Job[R], payload: bytes, rows: int) -> None:
        self.job = job
        self.payload = payload
        self.rows = rows
        self.results: Sequence[R] | None = None
        self.failure: Exception | None = None


class Run(NamedTuple):
    """A run that has ended."""

    seconds: float
    cpu_seconds: float
    bisections: int
    """How often the batch was halved."""


NO_RUN = Run(0.0, 0.0, 0)
"""Of a batch that was not run, or whose run was stopped."""


def resolve(part: Part[Any]) -> None:
    """Hand a part's outcome to its job. The job's future is resolved once: with its last part or
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
