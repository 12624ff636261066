"""The part of `exposition` for what is followed: models of the registry, and the catalogue."""

from collections.abc import Iterator
from typing import Self

import msgspec
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from halfcore.metrics.counters import CatalogMetrics, FollowMetrics


class FollowSnapshot(msgspec.Struct):
    """One followed model's counters."""

    swaps: dict[str, int]
    poll_failures: dict[str, int]
    last_success: float
    pending: int
    workers: dict[str, int]
    """Served version → workers that serve it."""
    schema_changes: dict[str, int]

    @classmethod
    def of(cls, metrics: FollowMetrics) -> Self:
        """A copy of a followed model's counters."""
        served = {metrics.served_version: 1} if metrics.served_version else {}
        return cls(
            swaps=dict(metrics.swaps),
            poll_failures=dict(metrics.poll_failures),
            last_success=metrics.last_success,
            pending=metrics.pending,
            workers=served,
            schema_changes=dict(metrics.schema_changes),
        )

    def add(self, other: "FollowSnapshot") -> None:
        """Add another worker's; keep the earlier `last_success`."""
        for own, others in (
            (self.swaps, other.swaps),
            (self.poll_failures, other.poll_failures),
            (self.workers, other.workers),
            (self.schema_changes, other.schema_changes),
        ):
            for key, number in others.items():
                own[key] = own.get(key, 0) + number
        self.last_success = min(self.last_success, other.last_success)
        self.pending += other.pending


def catalog_families(catalog: CatalogMetrics) -> Iterator[Metric]:
    """The metrics of the catalogue."""
    refreshes = CounterMetricFamily(
        "halfcore_catalog_refreshes", "Reads of the feature catalogue by result.", labels=["result"]
    )
    for result, number in catalog.refreshes.items():
        refreshes.add_metric([result], number)
    yield refreshes
    refused = GaugeMetricFamily(
        "halfcore_catalog_refused",
        "1 if a model's rows in the catalogue are not applied.",
        labels=["model"],
    )
    for model, is_refused in catalog.refused.items():
        refused.add_metric([model], is_refused)
    yield refused
    yield GaugeMetricFamily(
        "halfcore_catalog_read_timestamp_seconds",
        "When the catalogue was read last; 0: never.",
        value=catalog.read_at,
    )
    yield GaugeMetricFamily(
        "halfcore_catalog_connected",
        "1 if every worker reads the catalogue.",
        value=catalog.connected,
    )


def following_families(following: dict[tuple[str, str], FollowSnapshot]) -> Iterator[Metric]:
    """The metrics of the followed models, by (model, role)."""
    own = ["model", "role"]
    swaps = CounterMetricFamily(
        "halfcore_model_swaps",
        "Bundles that were swapped in, refused or not fetched.",
        labels=[*own, "result"],
    )
    polls = CounterMetricFamily(
        "halfcore_registry_poll_failures",
        "Polls that failed.",
        labels=[*own, "code"],
    )
    success = GaugeMetricFamily(
        "halfcore_registry_last_success_timestamp_seconds",
        "When the registry last answered.",
        labels=own,
    )
    pending = GaugeMetricFamily(
        "halfcore_model_pending", "Workers for which a bundle waits to be served.", labels=own
    )
    workers = GaugeMetricFamily(
        "halfcore_model_served_workers", "Workers that serve a version.", labels=[*own, "version"]
    )
    changes = CounterMetricFamily(
        "halfcore_model_schema_changes",
        "Swaps that changed columns, their values or the answers.",
        labels=[*own, "compatible"],
    )
    for key, one in following.items():
        for family, counts in (
            (swaps, one.swaps),
            (polls, one.poll_failures),
            (workers, one.workers),
            (changes, one.schema_changes),
        ):
            for label, number in counts.items():
                family.add_metric([*key, label], number)
        success.add_metric(key, one.last_success)
        pending.add_metric(key, one.pending)
    yield from (swaps, polls, success, pending, workers, changes)
