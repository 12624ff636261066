"""The time limit of bodies that are arriving, and how they are read while memory is scarce."""

import asyncio
import gc

import pytest

from halfcore.predict import body
from halfcore.predict.body import SCARCE_SHARE, BodyReader

BODIES = 200


class Body:
    """A body that never arrives, and forgets itself when it is given up."""

    def __init__(self, reader: BodyReader) -> None:
        self._reader = reader

    def cancel(self) -> None:
        """It was too slow."""
        self._reader.end(self)


async def test_bodies_that_begin_while_garbage_is_collected_are_limited_as_others() -> None:
    """granian's thread may run whenever the collector calls Python; here a callback of the
    collector stands for it. Each body is given up, and so is the next one after them."""
    reader = BodyReader(max_bytes=1000, timeout_s=0.01)
    loop = asyncio.get_running_loop()
    begun = 0

    def begin(*_: object) -> None:
        nonlocal begun
        if begun < 2 * BODIES:
            begun += 1
            reader.begin(Body(reader), loop)

    async def given_up() -> None:
        async with asyncio.timeout(60):
            while reader.reading:  # noqa: ASYNC110  nothing notifies of it
                await asyncio.sleep(0.001)

    for _ in range(BODIES):
        begin()
    threshold = gc.get_threshold()
    gc.callbacks.append(begin)
    gc.set_threshold(5)
    try:
        await given_up()
    finally:
        gc.set_threshold(*threshold)
        gc.callbacks.remove(begin)
    assert begun > BODIES
    reader.begin(Body(reader), loop)
    await given_up()


async def test_bodies_are_read_in_pieces_for_a_while_once_memory_was_scarce(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Slow clients alone are no reason, nor is scarce memory without them."""
    now = 100.0
    monkeypatch.setattr(body, "monotonic", lambda: now)
    reader, loop = BodyReader(max_bytes=1000, timeout_s=60), asyncio.get_running_loop()

    async def one(*, slow: bool, left: float) -> int:
        """Let a body arrive; return the largest body that is then read in one step."""
        nonlocal now
        reader.memory_left = lambda: left
        swept = asyncio.Event()
        monkeypatch.setattr(reader, "_adapt", lambda *a, **k: (adapt(*a, **k), swept.set()))
        arriving = Body(reader)
        reader.begin(arriving, loop)
        now += 1.0 if slow else 0.0
        reader._due = now  # the loop is not late
        await swept.wait()
        if arriving in reader.reading:
            reader.end(arriving)
        return reader.whole_bytes

    adapt = reader._adapt
    assert await one(slow=True, left=1.0) == 1000
    assert await one(slow=False, left=0.0) == 1000
    assert await one(slow=True, left=SCARCE_SHARE / 2) == 0
    assert await one(slow=True, left=1.0) == 0
    now += body.IN_PIECES_S
    assert await one(slow=False, left=1.0) == 1000
