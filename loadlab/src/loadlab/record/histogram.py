"""Latencies: exact counts per microsecond while a run lasts, within 1 % once stored.

The hot loop adds one to a dictionary's entry, which is cheaper than any histogram. A bucket is of
the HDR layout, 128 steps per power of two: it keeps a stored run small, and histograms of workers,
seconds and runs add up without loss. On disk they are a flat list of gaps and counts:
`{250: 3, 260: 1}` becomes `[250, 3, 8, 1]`: bucket 250, then 8 buckets on.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cache

import msgspec

_STEP_BITS = 7
"""2^7 steps per power of two: the width of a bucket is at most 1/128 of its value."""
_QUANTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p99.9": 0.999}


class Spread(msgspec.Struct, frozen=True, kw_only=True):
    """A distribution in milliseconds, and its buckets: microseconds (lower edge) → count."""

    count: int
    quantiles_ms: dict[str, float]
    max_ms: float
    buckets: dict[int, int]


def index(value_us: int) -> int:
    """The number of a value's bucket, without holes; values below 256 µs have their own."""
    shift = max(value_us.bit_length() - _STEP_BITS - 1, 0)
    return (shift << _STEP_BITS) + (value_us >> shift)


@cache
def edge(number: int) -> int:
    """The lower edge of a bucket, microseconds."""
    shift = max((number >> _STEP_BITS) - 1, 0)
    return (number - (shift << _STEP_BITS)) << shift


def quantile(counts: Mapping[int, int], q: float) -> int:
    """The smallest value that at least the share `q` of all values does not exceed; 0 without
    values."""
    wanted = q * sum(counts.values())
    seen = 0
    for value in sorted(counts):
        seen += counts[value]
        if seen >= wanted:
            return value
    return 0


def spread(counts: Mapping[int, int]) -> Spread:
    """Quantiles and buckets of exact counts per microsecond."""
    return Spread(
        count=sum(counts.values()),
        quantiles_ms={name: quantile(counts, q) / 1000 for name, q in _QUANTILES.items()},
        max_ms=max(counts, default=0) / 1000,
        buckets={edge(number): count for number, count in _numbered(counts)},
    )


def pack(counts: Mapping[int, int]) -> list[int]:
    """Counts per microsecond (exact values or lower edges) as gaps and counts."""
    packed, before = [], 0
    for number, count in _numbered(counts):
        packed += [number - before, count]
        before = number
    return packed


def _numbered(counts: Mapping[int, int]) -> list[tuple[int, int]]:
    """The buckets' numbers with their counts, in order."""
    buckets: Counter[int] = Counter()
    for value, count in counts.items():
        buckets[index(max(value, 0))] += count
    return sorted(buckets.items())


def merge(many: Iterable[Sequence[int]]) -> Counter[int]:
    """The sum of packed histograms: counts per lower edge, microseconds."""
    total: Counter[int] = Counter()
    for packed in many:
        number = 0
        for gap, count in zip(packed[::2], packed[1::2], strict=True):
            number += gap
            total[number] += count
    return Counter({edge(number): count for number, count in total.items()})
