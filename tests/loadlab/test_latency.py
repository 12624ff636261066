"""Latencies: exact quantiles, buckets within 1 %."""

from hypothesis import given
from hypothesis import strategies as st

from loadlab.record.histogram import edge, index, quantile, spread


@given(st.integers(min_value=0, max_value=10**9))
def test_a_bucket_is_within_one_percent_below_its_values(value_us):
    """So a stored distribution loses nothing that matters."""
    assert 0 <= value_us - edge(index(value_us)) <= value_us / 100


@given(st.lists(st.integers(min_value=0, max_value=10**7), min_size=1))
def test_the_extremes_are_the_smallest_and_largest_value(values):
    """A quantile is always a value that occurred."""
    counts = {value: values.count(value) for value in values}

    assert quantile(counts, 0) == min(values)
    assert quantile(counts, 1) == max(values)


def test_quantiles_are_those_of_the_sorted_values():
    """Nearest rank, in milliseconds."""
    found = spread(dict.fromkeys(range(1000, 0, -1), 1))

    assert found.count == 1000
    assert found.quantiles_ms == {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p99.9": 0.999}
    assert found.max_ms == 1.0
    assert sum(found.buckets.values()) == 1000


def test_no_values_are_no_error():
    """A run without answers is stored like any other."""
    assert spread({}).quantiles_ms["p99"] == 0
