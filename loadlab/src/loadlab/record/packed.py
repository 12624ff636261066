"""Histograms on disk: counts per bucket of microseconds as a flat list of gaps and counts.

`{250: 3, 260: 1}` becomes `[250, 3, 8, 1]`: bucket 250, then 8 buckets on. Buckets are those of
`loadlab.record.latency`: 128 steps per power of two, so that a value is known within 1 %, and
histograms of workers, seconds and runs add up without loss.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cache

from loadlab.record.latency import bucket

_STEP_BITS = 7


def index(value_us: int) -> int:
    """The number of a value's bucket: 0, 1, 2, … without holes."""
    shift = max(value_us.bit_length() - _STEP_BITS - 1, 0)
    return (shift << _STEP_BITS) + (value_us >> shift)


@cache
def edge(number: int) -> int:
    """The lower edge of a bucket, microseconds."""
    shift = max((number >> _STEP_BITS) - 1, 0)
    return (number - (shift << _STEP_BITS)) << shift


def pack(counts: Mapping[int, int]) -> list[int]:
    """Counts per microsecond (exact values or lower edges) as gaps and counts."""
    buckets: Counter[int] = Counter()
    for value, count in counts.items():
        buckets[index(bucket(max(value, 0)))] += count
    packed, before = [], 0
    for number in sorted(buckets):
        packed += [number - before, buckets[number]]
        before = number
    return packed


def unpack(packed: Sequence[int]) -> Counter[int]:
    """Counts per lower edge, microseconds."""
    return merge([packed])


def merge(many: Iterable[Sequence[int]]) -> Counter[int]:
    """The sum of packed histograms: counts per lower edge, microseconds."""
    total: dict[int, int] = {}
    for packed in many:
        number = 0
        for gap, count in zip(packed[::2], packed[1::2], strict=True):
            number += gap
            total[number] = total.get(number, 0) + count
    return Counter({edge(number): count for number, count in total.items()})
