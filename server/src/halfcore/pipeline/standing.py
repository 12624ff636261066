"""Finds out that a queue stands, and how long it may be then.

A burst makes a queue that ends by itself, and waiting in it is right. A queue that stands because
more arrives than is run makes every request wait as long as the queue is, and runs none more. So
once the wait has been above a target for a while, no more requests may wait than are run in the
target's time, and the oldest, whose clients have waited longest, are refused (CoDel separates the
two in this way; Nichols and Jacobson, 2012). The rate is counted, and not predicted from the cost
of a row: that is CPU time, and a server whose quota is spent runs several times less in a second.
"""

from math import inf

STANDING_S = 0.5
"""Seconds above the target after which a queue stands, and without a refusal after which it no
longer does; five periods of a CPU quota."""
WINDOW_S = 0.2
"""Seconds over which requests are counted."""
FEWEST = 1
"""Requests that may always wait, however long a row takes: the next one. More arrive while it runs,
because the queue stands."""


class Standing:
    """Watches one queue; looked at once per batch.

    Args:
        target_s: longest wait in a queue that stands, seconds; 0: queues may stand.

    Attributes:
        target_s: as given.
        most: requests that may wait now.
        refused_at: when a request was last refused because of it.
    """

    def __init__(self, target_s: float) -> None:
        self.target_s = target_s
        self.most = inf
        self.refused_at = -inf
        self._long_since = inf
        self._window_at = -inf
        self._taken = 0
        self._rate = 0.0

    def look(self, now: float, waited_s: float) -> None:
        """Look before a batch is taken.

        Args:
            now: seconds.
            waited_s: since the oldest request was queued; 0: none waits.
        """
        if waited_s <= self.target_s or not self.target_s:
            self._long_since = inf
        elif self._long_since == inf:
            self._long_since = now
        if now - self._window_at >= WINDOW_S:
            self._rate = self._taken / (now - self._window_at)
            self._window_at, self._taken = now, 0
        if now - self._long_since > STANDING_S or now - self.refused_at <= STANDING_S:
            self.most = max(FEWEST, self._rate * self.target_s)
        else:
            self.most = inf

    def took(self, requests: int) -> None:
        """So many requests were taken out of the queue."""
        self._taken += requests
