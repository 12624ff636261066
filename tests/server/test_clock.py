"""Ages while the clock of the machine is set: forward, back, or right for the first time."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from halfcore.catalog import state
from halfcore.catalog.snapshot import Snapshot
from halfcore.catalog.state import Catalog
from halfcore.metrics.counters import CatalogMetrics, FollowMetrics
from halfcore.registry import reporter, status
from halfcore.registry.reporter import Reporter
from halfcore.registry.sources import parse_one

YEAR = timedelta(days=365)


class Clock:
    """A clock that is set, next to one that only runs."""

    def __init__(self) -> None:
        self.wall = datetime(1970, 1, 1, tzinfo=UTC)
        self.running = 100.0

    def now(self, zone: Any) -> datetime:
        """As `datetime.now`."""
        return self.wall.astimezone(zone)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    """The clocks of whatever reports an age."""
    clock = Clock()
    for module in (state, reporter, status):
        monkeypatch.setattr(module, "datetime", SimpleNamespace(now=clock.now))
        monkeypatch.setattr(module, "monotonic", lambda: clock.running)
    return clock


def test_the_age_of_a_poll_is_that_of_the_running_clock(clock: Clock) -> None:
    """A machine that learns the time after its start does not report an age of 56 years."""
    follower = Reporter(parse_one("models:/iris@champion"), "", FollowMetrics())
    assert status.described(follower.status)["last_success_age_s"] is None
    follower.registry_answered()
    for change in (56 * YEAR, -YEAR):
        clock.wall += change
        clock.running += 2.5
        assert status.described(follower.status)["last_success_age_s"] in (2.5, 5.0)


def test_the_age_of_the_catalogue_is_never_negative(clock: Clock) -> None:
    """Of one that was read by this process, and of one from the disk of a clock ahead."""
    last = Snapshot(clock.wall + YEAR, {})
    catalog = Catalog(CatalogMetrics(), asyncio.Event(), max_rows=1, last=last)
    assert catalog.describe("iris")["age_s"] == 0.0

    catalog._count_read(changed=False)
    clock.wall -= YEAR / 365
    clock.running += 2.5
    assert catalog.describe("iris")["age_s"] == 2.5
