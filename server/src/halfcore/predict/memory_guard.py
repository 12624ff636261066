"""Refuses requests while the memory limit is near: a server that is killed answers nobody.

The plan of connections (`process.sizing`) leaves room for what requests usually take. This is for
what it cannot know: other processes of the same control group, clients that send the largest bodies
all at once, a swap between two large models, bodies that arrive byte by byte.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Protocol

from halfcore import host
from halfcore.log import logger
from halfcore.predict.body import BodyReader

PERIOD_S = 0.5
"""Seconds between two readings; each reads three small files of the kernel."""
SHORT_SHARE = 0.04
"""Share of the limit below which memory is short."""
ENOUGH_SHARE = 0.08
"""Share of the limit above which it is enough again."""


class Guarded(Protocol):
    """What refuses requests."""

    memory_is_short: bool
    reader: BodyReader
    """Gives up bodies."""


async def guard(
    guarded: Guarded,
    *,
    limit: Callable[[], int | None] = host.memory_limit,
    left: Callable[[], int | None] = host.memory_left,
    period_s: float = PERIOD_S,
) -> None:
    """Set `memory_is_short` by what the limit leaves, until cancelled; returns at once if there is
    no limit.

    Args:
        guarded: refuses requests while it is set.
        limit: bytes, None if there is no limit.
        left: bytes that are left of it.
        period_s: seconds between two readings.
    """
    most = limit()
    if most is not None:
        guarded.reader.memory_left = partial(_share, most, left)
    given_up = 0
    while most is not None:
        _judge(guarded, most, left())
        if guarded.reader.given_up != given_up:
            given_up = guarded.reader.given_up
            host.give_back_memory()  # glibc keeps what Python had read of these bodies
        await asyncio.sleep(period_s)


def _share(limit: int, left: Callable[[], int | None]) -> float:
    """Share of the limit that is left; 1 if the kernel does not say."""
    bytes_left = left()
    return 1.0 if bytes_left is None else bytes_left / limit


def _judge(guarded: Guarded, limit: int, left: int | None) -> None:
    if left is None:
        return
    if not guarded.memory_is_short and left < limit * SHORT_SHARE:
        guarded.memory_is_short = True
        logger.warning(
            "requests are refused with 503: %d MB of the memory limit of %d MB are left; raise the "
            "limit, or lower HALFCORE_MAX_CONNECTIONS or HALFCORE_MAX_BODY_BYTES",
            left // 1_000_000,
            limit // 1_000_000,
        )
    elif guarded.memory_is_short and left > limit * ENOUGH_SHARE:
        guarded.memory_is_short = False
        logger.info("requests are accepted again: %d MB of memory are left", left // 1_000_000)
