"""Gives Locust's own statistics (its page on 8089, its summary) what `RawHttpUser` did, once a
second instead of once a request."""

import time
from typing import Any

from loadlab.generator.ledger import Tick

_METHOD, _NAME = "POST", "predict"


def add_to_locust(environment: Any, tick: Tick) -> None:
    """Add one second's requests to Locust's statistics; response times in whole milliseconds, as
    Locust keeps them."""
    stats = environment.stats
    for entry in (stats.get(_NAME, _METHOD), stats.total):
        for histogram in (tick.response_us, tick.failed_us):
            for value_us, count in histogram.items():
                _add(entry, value_us // 1000, count)
    for kind, count in tick.failures.items():
        for _ in range(count):
            stats.log_error(_METHOD, _NAME, kind)


def _add(entry: Any, value_ms: int, count: int) -> None:
    now = time.time()
    entry.num_requests += count
    entry.num_reqs_per_sec[int(now)] += count
    entry.last_request_timestamp = now
    entry.total_response_time += value_ms * count
    entry.min_response_time = (
        value_ms if entry.min_response_time is None else min(entry.min_response_time, value_ms)
    )
    entry.max_response_time = max(entry.max_response_time, value_ms)
    entry.response_times[value_ms] += count
