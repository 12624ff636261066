"""What the supervisor of several workers knows and every worker reports, in their shared
directory."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prometheus_client.core import Metric

_FILE = "deaths"


def count_death(shared: Path) -> None:
    """Count a worker that ended unexpectedly; called by the supervisor alone."""
    partial = shared / f"{_FILE}.new"
    partial.write_text(str(deaths(shared) + 1))
    partial.replace(shared / _FILE)


def deaths(shared: Path) -> int:
    """How many workers ended unexpectedly since the start."""
    try:
        return int((shared / _FILE).read_text())
    except FileNotFoundError:
        return 0


def family(shared: Path) -> "Metric":
    """The metric of the deaths."""
    from prometheus_client.core import CounterMetricFamily  # late: not for the supervisor

    return CounterMetricFamily(
        "halfcore_worker_deaths", "Workers that ended unexpectedly.", value=deaths(shared)
    )


def has_ended(pid: int) -> bool:
    """Whether a worker has ended."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False
