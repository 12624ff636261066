"""The budget of bytes: what large bodies, rows and answers take together has a limit.

The plan of connections (`process.sizing`) keeps room for small requests on all of them; 60 bodies
of 4 MB it cannot know. So everything large is reserved here before it is in memory: a body by its
announced length before any of it is read, a chunked or compressed one as it grows, the rows when
they are decoded, the answer before it is sent. What does not fit is answered with 503. Whoever has
the memory holds its `Hold`, and releases it on every way out.

Used on the event loop only: granian's thread passes on large bodies without asking for them.
"""

import sys
from collections.abc import Callable
from time import monotonic
from types import TracebackType
from typing import Self

from halfcore.log import logger
from halfcore.problem import Problem

SMALL_BYTES = 8 << 10
"""Largest body or rows that are not reserved: the plan of connections has room for them."""
LARGE_ANSWER_BYTES = 64 << 10
"""Largest answer that is not reserved: the kernel takes it from the server at once, whether the
client reads or not."""
FILE_BYTES = 300_000
"""Bytes of a file that are in memory for a client that does not read: granian reads 128 KiB at a
time, and hyper holds one such part while the next is read."""
LOG_EVERY_S = 10.0
"""Seconds between two lines in the log about requests that did not fit."""
OTHER_SHARE = 4
"""Pages and files may exceed the limit by one part in so many, so that predictions cannot shut them
out."""


class Budget:
    """The bytes of one worker.

    Args:
        limit: most bytes that are reserved at a time.
        clock: returns seconds.
    """

    def __init__(self, limit: int = sys.maxsize, clock: Callable[[], float] = monotonic) -> None:
        self.limit = limit
        self.used = 0
        """Bytes that are reserved."""
        self.refused = 0
        """Requests that did not fit."""
        self._clock = clock
        self._logged_at = -LOG_EVERY_S

    def hold(self, *, of_pages: bool = False) -> "Hold":
        """A share of the budget, empty at first; `of_pages`: of something else than a
        prediction."""
        return Hold(self, extra=self.limit // OTHER_SHARE if of_pages else 0)

    def figures(self) -> tuple[int, int]:
        """Bytes that are reserved, and the limit."""
        return self.used, self.limit

    def refuse(self, size: int) -> Problem:
        """Count a request that does not fit with `size` more bytes; return its 503."""
        self.refused += 1
        now = self._clock()
        if now - self._logged_at >= LOG_EVERY_S:
            self._logged_at = now
            logger.warning(
                "a request was refused with 503: it needs %.1f MB, and %.1f of %.1f MB for large "
                "bodies, rows and answers are in use (%d refused so far); raise the memory limit "
                "or HALFCORE_MAX_BYTES_IN_FLIGHT, or add a server",
                size / 1e6,
                self.used / 1e6,
                self.limit / 1e6,
                self.refused,
            )
        message = "the server has no memory for more large requests now; try again"
        close = {"connection": "close"}  # the body may be unread
        return Problem(503, "too_many_bytes", message, retry_after_s=1, headers=close)


class Hold:
    """What one body, one request's rows or one answer has reserved. Leaving the block releases
    it.

    Args:
        budget: of which it is a share.
        extra: bytes by which it may exceed the budget's limit.
    """

    __slots__ = ("_budget", "_extra", "size")

    def __init__(self, budget: Budget, *, extra: int = 0) -> None:
        self._budget = budget
        self._extra = extra
        self.size = 0
        """Bytes that are reserved."""

    def cover(self, size: int) -> None:
        """Have at least so many bytes reserved; up to `SMALL_BYTES` none are needed.

        Raises:
            Problem: 503, they do not fit. What was reserved stays so.
        """
        if size <= SMALL_BYTES or size <= self.size:
            return
        if not self.fits(size):
            raise self._budget.refuse(size)
        self.force(size)

    def fits(self, size: int) -> bool:
        """Whether so many bytes can be reserved."""
        budget = self._budget
        return budget.used + size - self.size <= budget.limit + self._extra

    def force(self, size: int) -> None:
        """Reserve so many bytes, also beyond the limit: the memory is already taken."""
        self._budget.used += size - self.size
        self.size = size

    def release(self) -> None:
        """Give all back; may be called several times."""
        self._budget.used -= self.size
        self.size = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()
