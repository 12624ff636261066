"""What the server counts, in the Prometheus text format.

The recording side is plain integers in lists, for it is on every request's path and runs on one event loop: a histogram's `observe`
is one `bisect` and two additions, a tenth of what a locked, labelled `prometheus_client` metric costs. The reading side hands those
numbers to `prometheus_client`, which knows the format.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Callable

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
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


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

    def buckets(self) -> list[tuple[str, float]]:
        """Cumulative counts by upper bound, as Prometheus wants them."""
        cumulative, result = 0, []
        for bound, count in zip((*map(str, self.bounds), "+Inf"), self.counts, strict=True):
            cumulative += count
            result.append((bound, float(cumulative)))
        return result


class ModelMetrics:
    """The counters of one model; every field is written by the event loop alone."""

    def __init__(self) -> None:
        self.decode = Histogram(SECONDS)
        self.queue = Histogram(SECONDS)
        self.infer = Histogram(SECONDS)
        self.encode = Histogram(SECONDS)
        self.batch_rows = Histogram(ROWS)
        self.bisections = 0
        self.queued_rows: Callable[[], int] = int


class Metrics:
    """All counters of one worker process. One exists per app."""

    def __init__(self, *, version: str) -> None:
        self.requests: dict[tuple[str, str, str], int] = {}
        """(route, model, outcome) → requests; the outcome is a status code or a problem's code, so the labels are bounded."""
        self.models: dict[str, ModelMetrics] = {}
        self.loaded: dict[tuple[str, str], float] = {}
        """(model, version) → Unix time of loading."""
        self.load_failures: dict[str, int] = {}
        self._version = version
        self._registry = CollectorRegistry()
        self._registry.register(_Reader(self))
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        GCCollector(registry=self._registry)

    def count(self, route: str, model: str, outcome: str) -> None:
        """Count one request by what came of it."""
        key = (route, model, outcome)
        self.requests[key] = self.requests.get(key, 0) + 1

    def of(self, model: str) -> ModelMetrics:
        """The counters of a model; they outlive its versions."""
        return self.models.setdefault(model, ModelMetrics())

    def text(self) -> bytes:
        """All metrics in the Prometheus text format."""
        return generate_latest(self._registry)

    def families(self) -> Iterator[Metric]:
        """The server's own metrics, for `prometheus_client`."""
        requests = CounterMetricFamily("halfcore_requests", "Requests by route, model and outcome.", labels=["route", "model", "outcome"])
        for (route, model, outcome), number in self.requests.items():
            requests.add_metric([route, model, outcome], number)
        yield requests
        yield _stages(self.models)
        yield _histogram("halfcore_batch_rows", "Rows in one session.run.", ((name, m.batch_rows) for name, m in self.models.items()))
        queued = GaugeMetricFamily("halfcore_queued_rows", "Rows waiting for inference.", labels=["model"])
        bisections = CounterMetricFamily("halfcore_batch_bisections", "Batches run again in halves because a row failed.", labels=["model"])
        for name, metrics in self.models.items():
            queued.add_metric([name], metrics.queued_rows())
            bisections.add_metric([name], metrics.bisections)
        yield queued
        yield bisections
        loaded = GaugeMetricFamily(
            "halfcore_model_loaded_timestamp_seconds", "When the served version was loaded.", labels=["model", "version"]
        )
        for (model, version), since in self.loaded.items():
            loaded.add_metric([model, version], since)
        yield loaded
        failures = CounterMetricFamily("halfcore_model_load_failures", "Bundles that were refused.", labels=["model"])
        for model, number in self.load_failures.items():
            failures.add_metric([model], number)
        yield failures
        yield InfoMetricFamily("halfcore_build", "The running server.", value={"version": self._version})


class _Reader(Collector):
    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics.families()


def _stages(models: dict[str, ModelMetrics]) -> Metric:
    family = HistogramMetricFamily(
        "halfcore_stage_duration_seconds", "Time in each stage of a request (infer: of a batch).", labels=["model", "stage"]
    )
    for name, metrics in models.items():
        for stage in ("decode", "queue", "infer", "encode"):
            histogram: Histogram = getattr(metrics, stage)
            family.add_metric([name, stage], histogram.buckets(), histogram.total)
    return family


def _histogram(name: str, help_text: str, series: Iterable[tuple[str, Histogram]]) -> Metric:
    family = HistogramMetricFamily(name, help_text, labels=["model"])
    for model, histogram in series:
        family.add_metric([model], histogram.buckets(), histogram.total)
    return family
