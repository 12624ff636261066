"""Drift as metrics: the difference between what requests hold and what the model's data held, as
population stability index. 0: equal shares; above 0.25: a change that is usually looked into.
"""

from collections.abc import Iterator, Mapping
from math import log
from typing import Protocol

import msgspec
from prometheus_client.core import GaugeMetricFamily, Metric

FEWEST_ROWS = 500
"""With fewer rows chance alone makes a difference, and none is exposed."""
ANSWERS = "(answers)"
"""The name under which the answers' drift is exposed."""


class Counted(msgspec.Struct):
    """One column's rows in each range so far, and the shares that were expected."""

    counts: list[float]
    expected: list[float]

    def add(self, other: "Counted") -> None:
        """Add another worker's, of the same version."""
        self.counts = [a + b for a, b in zip(self.counts, other.counts, strict=True)]


class DriftSnapshot(msgspec.Struct):
    """What one worker counted of a version."""

    version: str
    columns: dict[str, Counted]

    def add(self, other: "DriftSnapshot") -> None:
        """Add another worker's; one that serves another version is left out."""
        if other.version == self.version and other.columns.keys() == self.columns.keys():
            for name, column in self.columns.items():
                column.add(other.columns[name])


class Watched(Protocol):
    """What counts the rows of a model."""

    def count(self) -> None:
        """Count what was run since the last call."""

    def snapshot(self) -> DriftSnapshot:
        """What was counted so far."""


def stability_index(column: Counted) -> float | None:
    """The population stability index; None while there are too few rows. Half a row is added to
    each range, so that an empty one is not an endless difference.

    Source: the sum of (found - expected) * ln(found / expected) over the ranges.
    """
    rows, ranges = sum(column.counts), len(column.counts)
    if rows < FEWEST_ROWS:
        return None
    total = 0.0
    for count, share in zip(column.counts, column.expected, strict=True):
        found = (count + 0.5) / (rows + ranges / 2)
        expected = (share * rows + 0.5) / (rows + ranges / 2)
        total += (found - expected) * log(found / expected)
    return total


def drift_families(models: Mapping[str, DriftSnapshot | None]) -> Iterator[Metric]:
    """The index of each column of each model; none without a distribution, or with few rows."""
    drift = GaugeMetricFamily(
        "halfcore_drift_index",
        "Population stability index of a column, or of the answers, against the model's data.",
        labels=["model", "version", "column"],
    )
    for name, counted in models.items():
        if counted is not None:
            for column, counts in counted.columns.items():
                if (index := stability_index(counts)) is not None:
                    drift.add_metric([name, counted.version, column], index)
    yield drift
