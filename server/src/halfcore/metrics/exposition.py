"""The counters of all workers as Prometheus's text.

A scrape reaches one worker, whichever accepts it, but must report all: once a second each worker
writes a snapshot of its counters to a directory that they share, and the worker that is scraped
adds its own counters to the others' snapshots. With one worker there is no directory.
"""

import asyncio
import itertools
import os
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from math import inf
from pathlib import Path
from typing import Self

import msgspec
from prometheus_client import (
    CollectorRegistry,
    GCCollector,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from halfcore.host import be_background
from halfcore.log import logger, reason_of
from halfcore.metrics import workers
from halfcore.metrics.counters import (
    ROWS,
    SECONDS,
    STAGES,
    CatalogMetrics,
    Histogram,
    Metrics,
    ModelMetrics,
)
from halfcore.metrics.drift import DriftSnapshot, drift_families
from halfcore.metrics.following import FollowSnapshot, catalog_families, following_families
from halfcore.metrics.limits import limit_families
from halfcore.metrics.optional import OptionalSnapshot, optional_families

CONTENT_TYPE = "text/plain; version=0.0.4"
"""Litestar adds the charset."""
PERIOD_S = 1.0
"""Seconds between snapshots: shorter than a usual scrape interval, and cheap at 0.1 ms each."""
_FEW_MODELS = 4
"""Up to so many, the text takes a few milliseconds, and no thread is needed."""


class Counts(msgspec.Struct):
    """A histogram's state."""

    counts: list[int]
    total: float

    @classmethod
    def of(cls, histogram: Histogram) -> Self:
        """A copy of a histogram's state."""
        return cls(list(histogram.counts), histogram.total)

    def add(self, other: "Counts") -> None:
        """Add another worker's."""
        self.counts = [a + b for a, b in zip(self.counts, other.counts, strict=True)]
        self.total += other.total


class ModelSnapshot(msgspec.Struct):
    """One model's counters."""

    stages: dict[str, Counts]
    batch_rows: Counts
    bisections: int
    queued_rows: int
    drift: DriftSnapshot | None

    @classmethod
    def of(cls, metrics: ModelMetrics) -> Self:
        """A copy of a model's counters."""
        return cls(
            {stage: Counts.of(getattr(metrics, stage)) for stage in STAGES},
            Counts.of(metrics.batch_rows),
            metrics.bisections,
            metrics.queued_rows(),
            metrics.drift.snapshot() if metrics.drift is not None else None,
        )

    def add(self, other: "ModelSnapshot") -> None:
        """Add another worker's."""
        for stage, counts in self.stages.items():
            counts.add(other.stages[stage])
        self.batch_rows.add(other.batch_rows)
        self.bisections += other.bisections
        self.queued_rows += other.queued_rows
        if self.drift and other.drift:
            self.drift.add(other.drift)


class Snapshot(msgspec.Struct):
    """One worker's counters."""

    requests: dict[tuple[str, str, str], int]
    models: dict[str, ModelSnapshot]
    loaded: dict[tuple[str, str], float]
    load_failures: dict[str, int]
    optional: OptionalSnapshot
    catalog: CatalogMetrics | None
    following: dict[tuple[str, str], FollowSnapshot]
    cpu_seconds: float
    bytes_in_flight: tuple[int, int]
    """Reserved for large requests, and the limit."""

    @classmethod
    def of(cls, metrics: Metrics) -> Self:
        """A copy of a worker's counters."""
        models = {name: ModelSnapshot.of(model) for name, model in metrics.models.items()}
        return cls(
            requests=metrics.outcomes(),
            models=models,
            loaded=dict(metrics.loaded),
            load_failures=dict(metrics.load_failures),
            optional=OptionalSnapshot.of(metrics),
            catalog=metrics.catalog
            and msgspec.convert(msgspec.to_builtins(metrics.catalog), CatalogMetrics),
            following={key: FollowSnapshot.of(one) for key, one in metrics.following.items()},
            cpu_seconds=time.process_time(),
            bytes_in_flight=metrics.bytes_in_flight(),
        )

    def add(self, other: "Snapshot") -> None:
        """Add another worker's; keep the later of two loading times."""
        for key, number in other.requests.items():
            self.requests[key] = self.requests.get(key, 0) + number
        for name, model in other.models.items():
            if name in self.models:
                self.models[name].add(model)
            else:
                self.models[name] = model
        for version, since in other.loaded.items():
            self.loaded[version] = max(since, self.loaded.get(version, 0.0))
        for name, number in other.load_failures.items():
            self.load_failures[name] = self.load_failures.get(name, 0) + number
        self.optional.add(other.optional)
        self.cpu_seconds += other.cpu_seconds
        used, limit = other.bytes_in_flight
        self.bytes_in_flight = (self.bytes_in_flight[0] + used, self.bytes_in_flight[1] + limit)
        if self.catalog and other.catalog:
            self.catalog.add(other.catalog)
        for followed, following in other.following.items():
            if followed in self.following:
                self.following[followed].add(following)
            else:
                self.following[followed] = following

    def forget_states(self) -> None:
        """Keep what a worker that has ended had counted, and not how it was."""
        self.loaded.clear()
        for model in self.models.values():
            model.queued_rows = 0
            model.drift = None  # its rows would never grow old
        if self.optional.log:
            self.optional.log.forget_states()
        if self.catalog:
            self.catalog = CatalogMetrics(self.catalog.refreshes, read_at=inf, connected=True)
        for one in self.following.values():
            one.last_success, one.pending, one.workers = inf, 0, {}


class _Collected(Collector):
    """What one scrape gets."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        """The families, once."""
        return self._families


class Exposition:
    """Answers scrapes for all workers.

    Args:
        metrics: this worker's counters.
        version: the server's version.
        shared: directory to which the workers write their snapshots; None if there is one worker.
    """

    def __init__(self, metrics: Metrics, *, version: str, shared: Path | None) -> None:
        self._metrics = metrics
        self._version = version
        self._own = shared / f"{os.getpid()}.msgpack" if shared else None
        self._limits: list[Metric] = []
        self._unshared = ""
        """Why the last snapshot was not written, so that the log says it once."""
        # Its thread starts with the first scrape that needs it.
        self._thread = ThreadPoolExecutor(
            1, thread_name_prefix="metrics", initializer=be_background
        )
        self._registry = CollectorRegistry()
        if shared is None:
            # These describe one process: with several, each scrape would describe another one.
            ProcessCollector(registry=self._registry)
            GCCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)

    async def scrape(self, snapshot: Snapshot | None = None) -> bytes:
        """All metrics in the Prometheus text format; of many models it is made in a thread, because
        it takes a second for 500, in which the event loop could answer nothing.

        Args:
            snapshot: of all workers; None: taken now, on the event loop that counts.
        """
        snapshot = snapshot or self.snapshot()
        if len(snapshot.models) <= _FEW_MODELS:
            return self.text(snapshot)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self.text, snapshot)

    def text(self, snapshot: Snapshot) -> bytes:
        """A snapshot, and what describes this process, in the Prometheus text format."""
        families = itertools.chain(self._collect(snapshot), self._registry.collect())
        return generate_latest(_Collected(families))

    async def share(self) -> None:
        """Read the limits, count rows of each model for its drift, and write a snapshot for the
        other workers, every `PERIOD_S` seconds until cancelled.

        The snapshot of a worker that died stays, so the sums never fall.
        """
        try:
            while True:
                self._limits = list(limit_families())
                for drift in filter(None, (one.drift for one in self._metrics.models.values())):
                    drift.count()
                if self._own is not None:
                    self._write(self._own)
                await asyncio.sleep(PERIOD_S)
        finally:
            self._thread.shutdown(wait=False, cancel_futures=True)

    def _write(self, file: Path) -> None:
        partial = file.with_suffix(".new")
        try:
            partial.write_bytes(msgspec.msgpack.encode(Snapshot.of(self._metrics)))
            partial.replace(file)
        except OSError as error:
            reason = reason_of(error)
            if reason != self._unshared:
                logger.warning(
                    "cannot share this worker's metrics, so /metrics of another worker lacks its "
                    "newest: %s; make room in the directory for temporary files, or let TMPDIR "
                    "name another one",
                    reason,
                )
            self._unshared = reason
        else:
            self._unshared = ""

    def snapshot(self) -> Snapshot:
        """The counters of all workers, now."""
        snapshot = Snapshot.of(self._metrics)
        for file in self._own.parent.glob("*.msgpack") if self._own else ():
            if file != self._own:
                other = msgspec.msgpack.decode(file.read_bytes(), type=Snapshot)
                if workers.has_ended(int(file.stem)):
                    other.forget_states()
                snapshot.add(other)
        return snapshot

    def _collect(self, snapshot: Snapshot) -> Iterable[Metric]:
        """The server's own metrics."""
        yield from _families(snapshot)
        yield from self._limits
        if self._own:
            yield workers.family(self._own.parent)
        yield InfoMetricFamily(
            "halfcore_build", "The running server.", value={"version": self._version}
        )


def _families(snapshot: Snapshot) -> Iterator[Metric]:
    requests = CounterMetricFamily(
        "halfcore_requests",
        "Requests by route, model and outcome.",
        labels=["route", "model", "outcome"],
    )
    for key, number in snapshot.requests.items():
        requests.add_metric(key, number)
    yield requests
    yield CounterMetricFamily(
        "halfcore_cpu_seconds", "CPU time of all workers.", snapshot.cpu_seconds
    )
    for name, text, value in zip(
        ("halfcore_bytes_in_flight", "halfcore_bytes_in_flight_limit"),
        ("Bytes reserved for large bodies, rows and answers.", "Most bytes that may be reserved."),
        snapshot.bytes_in_flight,
        strict=True,
    ):
        yield GaugeMetricFamily(name, text, value=value)
    yield from _model_families(snapshot.models)
    yield from _loading_families(snapshot)
    yield from optional_families(snapshot.optional)
    if snapshot.catalog:
        yield from catalog_families(snapshot.catalog)
    if snapshot.following:
        yield from following_families(snapshot.following)


def _model_families(models: dict[str, ModelSnapshot]) -> Iterator[Metric]:
    stages = HistogramMetricFamily(
        "halfcore_stage_duration_seconds",
        "Time in each stage of a request (infer: of a batch).",
        labels=["model", "stage"],
    )
    rows = HistogramMetricFamily(
        "halfcore_batch_rows", "Rows in one run of the model.", labels=["model"]
    )
    queued = GaugeMetricFamily(
        "halfcore_queued_rows", "Rows waiting for inference.", labels=["model"]
    )
    bisections = CounterMetricFamily(
        "halfcore_batch_bisections",
        "Batches run again in halves because a row failed.",
        labels=["model"],
    )
    for name, model in models.items():
        for stage, counts in model.stages.items():
            stages.add_metric([name, stage], _buckets(SECONDS, counts), counts.total)
        rows.add_metric([name], _buckets(ROWS, model.batch_rows), model.batch_rows.total)
        queued.add_metric([name], model.queued_rows)
        bisections.add_metric([name], model.bisections)
    yield from (stages, rows, queued, bisections)
    yield from drift_families({name: model.drift for name, model in models.items()})


def _loading_families(snapshot: Snapshot) -> Iterator[Metric]:
    loaded = GaugeMetricFamily(
        "halfcore_model_loaded_timestamp_seconds",
        "When the version was loaded.",
        labels=["model", "version"],
    )
    for version, since in snapshot.loaded.items():
        loaded.add_metric(version, since)
    yield loaded
    failures = CounterMetricFamily(
        "halfcore_model_load_failures", "Bundles that were refused.", labels=["model"]
    )
    for name, number in snapshot.load_failures.items():
        failures.add_metric([name], number)
    yield failures


def _buckets(bounds: tuple[float, ...], counts: Counts) -> list[tuple[str, float]]:
    """Cumulative counts by upper bound, as Prometheus expects them."""
    cumulative, result = 0, []
    for bound, count in zip((*bounds, float("inf")), counts.counts, strict=True):
        cumulative += count
        text = str(floatToGoString(bound))  # type: ignore[no-untyped-call]
        result.append((text, float(cumulative)))
    return result
