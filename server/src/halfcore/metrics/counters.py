"""The server's counters.

They are plain integers in lists, because they are on every request's path and each worker has one
event loop: a histogram's `observe` is one `bisect` and two additions, a tenth of the cost of a
locked, labelled `prometheus_client` metric. `exposition` writes them in Prometheus's text format.
"""

from bisect import bisect_left
from collections.abc import Callable
from time import time

import msgspec

from halfcore.metrics.drift import Watched

SECONDS = (
    0.00001,
    0.000025,
    0.00005,
    0.0001,
    0.00025,
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
)
ROWS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0)
STAGES = ("decode", "queue", "infer", "encode")


class Histogram:
    """Counts of values up to each bound, and their sum."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


PREDICT = "predict"
"""The prediction routes, in `Metrics.requests`."""


class ModelMetrics:
    """The counters of one model; only the event loop writes them."""

    def __init__(self) -> None:
        self.answered = 0
        """Predictions answered with 200."""
        self.decode = Histogram(SECONDS)
        self.queue = Histogram(SECONDS)
        self.infer = Histogram(SECONDS)
        self.encode = Histogram(SECONDS)
        self.batch_rows = Histogram(ROWS)
        self.bisections = 0
        self.queued_rows: Callable[[], int] = int
        self.drift: Watched | None = None
        """Compares requests with the model's data, if its manifest describes that."""


class PredictionLogMetrics:
    """The counters of the prediction log."""

    def __init__(self) -> None:
        self.written = 0
        """Rows that this worker wrote to the table."""
        self.spooled = 0
        """Rows that were first written to the disk."""
        self.torn = 0
        """Segments of the spool that ended in a torn block or could not be read."""
        self.dropped: dict[str, int] = {}
        """Reason → rows that were not logged."""
        self.last_write = 0.0
        """Unix time of the last transaction that succeeded; 0: none yet."""
        self.queued: Callable[[], tuple[int, int]] = lambda: (0, 0)
        """Rows and bytes in memory."""
        self.spool: Callable[[], tuple[int, int]] = lambda: (0, 0)
        """Rows and bytes on the disk."""

    def drop(self, reason: str, rows: int = 1) -> None:
        """Count rows that are not logged."""
        self.dropped[reason] = self.dropped.get(reason, 0) + rows

    def wrote(self, rows: int, refused: int) -> None:
        """Count a transaction that succeeded."""
        self.written += rows
        self.last_write = time()
        if refused:
            self.drop("refused_by_database", refused)


class CatalogMetrics(msgspec.Struct):
    """The results of reading the feature catalogue."""

    refreshes: dict[str, int] = {}
    """Result → reads: `changed`, `unchanged`, `refused` (a model's rows are not applied) or
    `failed` (nothing was read)."""
    refused: dict[str, int] = {}
    """Model → 1 if its rows are not applied."""
    read_at: float = 0.0
    """Unix time of the last read; 0: never."""
    connected: bool = False

    def count(self, result: str) -> None:
        """Count one read by its result."""
        self.refreshes[result] = self.refreshes.get(result, 0) + 1

    def add(self, other: "CatalogMetrics") -> None:
        """Add another worker's counts; of the other fields take the worse value."""
        for result, number in other.refreshes.items():
            self.refreshes[result] = self.refreshes.get(result, 0) + number
        for model, refused in other.refused.items():
            self.refused[model] = max(refused, self.refused.get(model, 0))
        self.read_at = min(self.read_at, other.read_at)
        self.connected = self.connected and other.connected


class FollowMetrics:
    """The counters of one followed model in one role."""

    def __init__(self) -> None:
        self.swaps: dict[str, int] = {}
        """`swapped`, or the code of a refusal or a failed fetch → how often."""
        self.poll_failures: dict[str, int] = {}
        """Code → polls that failed."""
        self.schema_changes: dict[str, int] = {}
        """Compatible, `true` or `false` → swaps that changed columns, what they may hold, or the
        answers."""
        self.last_success = 0.0
        """Unix time of the last poll that succeeded; 0: none yet."""
        self.served_version = ""
        self.pending = 0
        """1 while the registry names a bundle that is not served yet."""

    def count(self, result: str) -> None:
        """Count the result for one bundle."""
        self.swaps[result] = self.swaps.get(result, 0) + 1

    def count_schema_change(self, *, compatible: bool) -> None:
        """Count a swap that changed what clients rely on."""
        key = str(compatible).lower()
        self.schema_changes[key] = self.schema_changes.get(key, 0) + 1

    def count_poll_failure(self, code: str) -> None:
        """Count a poll that failed."""
        self.poll_failures[code] = self.poll_failures.get(code, 0) + 1


class Metrics:
    """All counters of one worker process. One exists per app."""

    def __init__(self) -> None:
        self.requests: dict[tuple[str, str, str], int] = {}
        """(route, model, outcome) → requests; the outcome is 200 or a problem's code, so the labels
        are bounded. Answered predictions are not here but in `ModelMetrics.answered`; `outcomes`
        has all."""
        self.refused_at_once = 0
        """Predictions that were refused as `overloaded` on granian's thread, which alone counts
        them."""
        self.models: dict[str, ModelMetrics] = {}
        self.loaded: dict[tuple[str, str], float] = {}
        """(model, version) → Unix time of loading."""
        self.load_failures: dict[str, int] = {}
        self.prediction_log: PredictionLogMetrics | None = None
        self.challenged: dict[tuple[str, str, str], int] = {}
        """(model, role, outcome) → requests of a model that has a challenger."""
        self.agreement: dict[tuple[str, str], int] = {}
        """(model, `equal` or `different`) → answers of a shadow, compared with the champion's."""
        self.catalog: CatalogMetrics | None = None
        """Of the feature catalogue, if one is configured."""
        self.following: dict[tuple[str, str], FollowMetrics] = {}
        """(model, role) → the counters of its follower."""
        self.bytes_in_flight: Callable[[], tuple[int, int]] = lambda: (0, 0)
        """Bytes that are reserved for large requests, and their limit."""
        self.key_requests: Callable[[], dict[str, int]] = dict
        """Name of an API key → requests that it was accepted for."""

    def count(self, route: str, model: str, outcome: str) -> None:
        """Count one request by its outcome."""
        key = (route, model, outcome)
        self.requests[key] = self.requests.get(key, 0) + 1

    def run_seconds(self) -> float:
        """Seconds of all models' runs."""
        return sum(model.infer.total for model in self.models.values())

    def outcomes(self) -> dict[tuple[str, str, str], int]:
        """(route, model, outcome) → requests, all of them."""
        answered = {
            (PREDICT, name, "200"): model.answered
            for name, model in self.models.items()
            if model.answered
        }
        found = self.requests | answered
        if self.refused_at_once:
            key = (PREDICT, "", "overloaded")
            found[key] = found.get(key, 0) + self.refused_at_once
        return found

    def of(self, model: str) -> ModelMetrics:
        """The counters of a model, of all its versions."""
        return self.models.setdefault(model, ModelMetrics())

    def following_of(self, model: str, role: str) -> FollowMetrics:
        """The counters of a followed model."""
        return self.following.setdefault((model, role), FollowMetrics())
