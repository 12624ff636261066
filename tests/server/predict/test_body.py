"""The time limit of bodies that are arriving."""

import asyncio
import gc

from halfcore.predict.body import BodyReader

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
