"""Requests are refused while the memory limit is near, and accepted again when it is not."""

import asyncio

import pytest

from halfcore.predict.body import GIVE_UP_SHARE, SCARCE_SHARE, BodyReader
from halfcore.predict.memory_guard import guard
from halfcore.problem import Problem

LIMIT = 200_000_000


class Guarded:
    """Remembers every change."""

    def __init__(self) -> None:
        self.changes = [False]
        self.reader = BodyReader(max_bytes=1000, timeout_s=60)

    @property
    def memory_is_short(self) -> bool:
        """As it was set last."""
        return self.changes[-1]

    @memory_is_short.setter
    def memory_is_short(self, value: bool) -> None:
        self.changes.append(value)


async def guarded_by(*left_mb: int | None) -> list[bool]:
    """What a guard sets for these readings."""
    readings, guarded = list(left_mb), Guarded()
    ended = asyncio.Event()

    def left() -> int | None:
        if not readings:
            ended.set()
            return None
        reading = readings.pop(0)
        return None if reading is None else reading * 1_000_000

    task = asyncio.create_task(guard(guarded, limit=lambda: LIMIT, left=left, period_s=0))
    await ended.wait()
    task.cancel()
    return guarded.changes[1:]


@pytest.mark.parametrize(
    ("left_mb", "changes"),
    [
        ((100, 50, 9), []),
        ((9, 7), [True]),
        ((7, 9, 15), [True]),
        ((7, 17), [True, False]),
        ((7, None, 17, 7), [True, False, True]),
    ],
)
async def test_short_below_a_share_and_enough_above_twice_that(
    left_mb: tuple[int | None, ...], changes: list[bool]
) -> None:
    """In between nothing changes, so it does not alternate with every reading."""
    assert await guarded_by(*left_mb) == changes


@pytest.mark.parametrize(
    ("left_mb", "in_pieces", "given_up"),
    [
        (int(LIMIT / 1e6 * GIVE_UP_SHARE) - 1, True, True),
        (int(LIMIT / 1e6 * GIVE_UP_SHARE) + 1, True, False),
        (int(LIMIT / 1e6 * SCARCE_SHARE) - 1, False, True),
        (int(LIMIT / 1e6 * SCARCE_SHARE) + 1, False, False),
    ],
)
async def test_bodies_that_arrive_slowly_are_given_up_while_memory_is_short(
    left_mb: int, *, in_pieces: bool, given_up: bool
) -> None:
    """Their clients get 503, not 408; one that is read in one step, which may take a thousand times
    its bytes, sooner. With enough memory they may go on."""
    guarded, loop = Guarded(), asyncio.get_running_loop()
    asked = asyncio.Event()

    def left() -> int:
        asked.set()
        return left_mb * 1_000_000

    task = asyncio.create_task(guard(guarded, limit=lambda: LIMIT, left=left, period_s=60))
    body = loop.create_future()
    await asyncio.sleep(0)  # the guard begins
    asked.clear()
    reading = asyncio.create_task(guarded.reader.in_time(body, in_pieces=in_pieces))
    if given_up:
        with pytest.raises(Problem) as caught:
            await reading
        assert (caught.value.status, caught.value.headers["retry-after"]) == (503, "1")
        assert guarded.reader.given_up == 1
    else:
        await asked.wait()  # it is slow, and was looked at
        await asyncio.sleep(0)
        body.set_result(b"late")
        assert await reading == b"late"
    task.cancel()


async def test_without_a_limit_nothing_is_read() -> None:
    """It returns."""
    await guard(Guarded(), limit=lambda: None, left=lambda: pytest.fail("read"))
