"""The part of `exposition` for optional features: the prediction log, the challengers, the API
keys."""

from collections.abc import Iterator
from typing import Self

import msgspec
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from halfcore.metrics.counters import Metrics, PredictionLogMetrics

DROP_REASONS = ("memory", "spool_full", "disk_error", "shutdown", "refused_by_database")
"""Why a prediction is not logged. All are exposed from the start: Prometheus sees no increase in a
counter that begins above 0."""


class LogSnapshot(msgspec.Struct):
    """One worker's prediction log."""

    written: int
    spooled: int
    torn: int
    dropped: dict[str, int]
    last_write: float
    queued: tuple[int, int]
    spool: tuple[int, int]

    @classmethod
    def of(cls, log: PredictionLogMetrics) -> Self:
        """A copy of a log's counters."""
        return cls(
            log.written,
            log.spooled,
            log.torn,
            dict(log.dropped),
            log.last_write,
            log.queued(),
            log.spool(),
        )

    def add(self, other: "LogSnapshot") -> None:
        """Add another worker's; keep the earlier last write, which shows a worker that cannot
        write."""
        self.written += other.written
        self.spooled += other.spooled
        self.torn += other.torn
        for reason, rows in other.dropped.items():
            self.dropped[reason] = self.dropped.get(reason, 0) + rows
        self.last_write = min(filter(None, (self.last_write, other.last_write)), default=0.0)
        self.queued = (self.queued[0] + other.queued[0], self.queued[1] + other.queued[1])
        self.spool = (self.spool[0] + other.spool[0], self.spool[1] + other.spool[1])

    def forget_states(self) -> None:
        """Keep the counters alone: the worker has ended."""
        self.last_write, self.queued, self.spool = 0.0, (0, 0), (0, 0)


class OptionalSnapshot(msgspec.Struct):
    """One worker's counters of the prediction log, the challengers and the API keys."""

    log: LogSnapshot | None
    challenged: dict[tuple[str, str, str], int]
    agreement: dict[tuple[str, str], int]
    keys: dict[str, int]

    @classmethod
    def of(cls, metrics: Metrics) -> Self:
        """A copy of a worker's counters."""
        log = LogSnapshot.of(metrics.prediction_log) if metrics.prediction_log else None
        return cls(log, dict(metrics.challenged), dict(metrics.agreement), metrics.key_requests())

    def add(self, other: "OptionalSnapshot") -> None:
        """Add another worker's."""
        if self.log and other.log:
            self.log.add(other.log)
        for key, number in other.challenged.items():
            self.challenged[key] = self.challenged.get(key, 0) + number
        for pair, rows in other.agreement.items():
            self.agreement[pair] = self.agreement.get(pair, 0) + rows
        for name, number in other.keys.items():
            self.keys[name] = self.keys.get(name, 0) + number


def optional_families(snapshot: OptionalSnapshot) -> Iterator[Metric]:
    """The metrics of the features that are configured."""
    if snapshot.log:
        yield from _log_families(snapshot.log)
    yield from _challenger_families(snapshot)
    if snapshot.keys:
        keys = CounterMetricFamily(
            "halfcore_key_requests", "Requests that an API key was accepted for.", labels=["key"]
        )
        for name, number in snapshot.keys.items():
            keys.add_metric([name], number)
        yield keys


def _challenger_families(snapshot: OptionalSnapshot) -> Iterator[Metric]:
    if snapshot.challenged:
        requests = CounterMetricFamily(
            "halfcore_challenger_requests",
            "Requests that were sent to a challenger.",
            labels=["model", "mode", "outcome"],
        )
        for key, number in snapshot.challenged.items():
            requests.add_metric(key, number)
        yield requests
    if snapshot.agreement:
        compared = CounterMetricFamily(
            "halfcore_challenger_compared_rows",
            "Rows of a shadow's answers, compared with the champion's.",
            labels=["model", "agreement"],
        )
        for pair, rows in snapshot.agreement.items():
            compared.add_metric(pair, rows)
        yield compared


def _log_families(log: LogSnapshot) -> Iterator[Metric]:
    name = "halfcore_prediction_log_"
    yield CounterMetricFamily(
        name + "written_rows", "Predictions written to the database.", value=log.written
    )
    yield CounterMetricFamily(
        name + "spooled_rows", "Predictions that were first written to the disk.", value=log.spooled
    )
    yield CounterMetricFamily(
        name + "torn_segments",
        "Segments of the spool with a torn end, or unreadable.",
        value=log.torn,
    )
    dropped = CounterMetricFamily(
        name + "dropped_rows", "Predictions that are not in the log.", labels=["reason"]
    )
    for reason, rows in (dict.fromkeys(DROP_REASONS, 0) | log.dropped).items():
        dropped.add_metric([reason], rows)
    yield dropped
    yield GaugeMetricFamily(name + "queued_rows", "Predictions in memory.", value=log.queued[0])
    yield GaugeMetricFamily(name + "queued_bytes", "Memory that they use.", value=log.queued[1])
    yield GaugeMetricFamily(name + "spool_rows", "Predictions on the disk.", value=log.spool[0])
    yield GaugeMetricFamily(
        name + "spool_bytes", "Size of the spool's segments.", value=log.spool[1]
    )
    yield GaugeMetricFamily(
        name + "last_write_timestamp_seconds",
        "When predictions were last written to the database.",
        value=log.last_write,
    )
