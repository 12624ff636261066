"""The CPU quota and the memory limit as metrics: am I throttled, and how near is the limit?

They are read from the kernel once a second: some six small files. They describe the control group,
which all workers share, so nothing is added up over the workers.
"""

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from halfcore import host


def limit_families() -> Iterator[Metric]:
    """What limits this process, and what that did so far; nothing for a limit that is not set."""
    yield from _cpu()
    yield from _memory()


def _cpu() -> Iterator[Metric]:
    quota, throttling = host.cpu_quota(), host.throttling()
    if quota is None or throttling is None:
        return
    yield GaugeMetricFamily("halfcore_cpu_quota_cores", "Cores that the quota allows.", quota)
    yield CounterMetricFamily(
        "halfcore_cpu_periods",
        "Periods of the quota in which the server wanted to run.",
        throttling.periods,
    )
    yield CounterMetricFamily(
        "halfcore_cpu_throttled_periods",
        "Periods in which the quota was used up.",
        throttling.throttled_periods,
    )
    yield CounterMetricFamily(
        "halfcore_cpu_throttled_seconds",
        "Time that threads waited for the next period of the quota.",
        throttling.throttled_s,
    )


def _memory() -> Iterator[Metric]:
    limit, left = host.memory_limit(), host.memory_left()
    if limit is None or left is None:
        return
    yield GaugeMetricFamily("halfcore_memory_limit_bytes", "The memory limit.", limit)
    yield GaugeMetricFamily(
        "halfcore_memory_left_bytes",
        "What is left of it; pages of files that can be dropped count as free.",
        left,
    )
