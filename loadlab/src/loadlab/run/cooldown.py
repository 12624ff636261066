"""The pause between two runs, so that the second one has free ports."""

import time

from loadlab.record import counters

_MOST_S = 70.0
_ENOUGH_TIME_WAIT = 1000


def cool_down() -> None:
    """Wait until the kernel has few connections in TIME_WAIT, or `_MOST_S` have passed: those of
    the last run hold ports that the next one needs (V9)."""
    deadline = time.monotonic() + _MOST_S
    while counters.tcp()["tw"] > _ENOUGH_TIME_WAIT and time.monotonic() < deadline:
        time.sleep(1.0)
