"""Long bodies are decoded in slices of the event loop's time, one after another."""

import asyncio
from collections.abc import Generator

from halfcore.pipeline.decode import Rows
from halfcore.predict.long_bodies import LongBodies
from halfcore.problem import Problem

ROWS = Rows(b"", 1, many=True)


class Request:
    """A request that waits for its rows."""

    def __init__(self) -> None:
        self.result: asyncio.Future[Rows] = asyncio.get_running_loop().create_future()
        self.left = False

    def done(self) -> bool:
        """Whether it has left."""
        return self.left

    def decoded(self, rows: Rows, _: float) -> None:
        """Take the rows."""
        self.result.set_result(rows)

    def set_exception(self, error: Exception) -> None:
        """Take the reason."""
        self.result.set_exception(error)


def sliced(name: str, slices: int, seen: list[str]) -> Generator[None, None, Rows]:
    """Work of so many slices, each of which is noted."""
    for _ in range(slices):
        seen.append(name)
        yield
    return ROWS


async def test_other_work_is_done_between_two_slices() -> None:
    """What is ready on the loop runs after each slice."""
    seen: list[str] = []
    request = Request()
    loop = asyncio.get_running_loop()

    def other(left: int) -> None:
        seen.append("other")
        if left:
            loop.call_soon(other, left - 1)

    LongBodies(timeout_s=5).add(sliced("slice", 3, seen), request)
    loop.call_soon(other, 3)

    assert await request.result is ROWS
    assert seen == ["slice", "other"] * 3 + ["other"]


async def test_bodies_are_decoded_one_after_another() -> None:
    """The second is begun when the first is decoded: only one is held in parts."""
    seen: list[str] = []
    bodies, first, second = LongBodies(timeout_s=5), Request(), Request()

    bodies.add(sliced("first", 2, seen), first)
    bodies.add(sliced("second", 1, seen), second)

    await asyncio.gather(first.result, second.result)
    assert seen == ["first", "first", "second"]


async def test_the_body_of_a_client_that_left_is_not_decoded() -> None:
    """Neither before its first slice nor after."""
    seen: list[str] = []
    bodies, gone, going, staying = LongBodies(timeout_s=5), Request(), Request(), Request()
    gone.left = True

    def leaving() -> Generator[None, None, Rows]:
        going.left = True
        yield from sliced("going", 5, seen)
        return ROWS

    bodies.add(sliced("gone", 1, seen), gone)
    bodies.add(leaving(), going)
    bodies.add(sliced("staying", 1, seen), staying)

    await staying.result
    assert seen == ["going", "staying"]
    assert not gone.result.done()


async def test_a_body_that_waited_too_long_is_refused() -> None:
    """With 503 and Retry-After, before any of it is decoded; one that is begun is decoded to its
    end."""
    now = 0.0
    seen: list[str] = []
    bodies, slow, late = LongBodies(timeout_s=5, clock=lambda: now), Request(), Request()

    def slowly() -> Generator[None, None, Rows]:
        nonlocal now
        now = 6.0
        yield
        return ROWS

    bodies.add(slowly(), slow)
    bodies.add(sliced("late", 1, seen), late)

    assert await slow.result is ROWS
    error = await asyncio.wait_for(asyncio.shield(_outcome(late)), 5)
    assert isinstance(error, Problem)
    assert (error.status, error.code, error.headers) == (503, "queue_timeout", {"retry-after": "1"})
    assert not seen


async def _outcome(request: Request) -> BaseException | None:
    await asyncio.wait([request.result])
    return request.result.exception()


async def test_an_error_of_one_body_does_not_stop_the_others() -> None:
    """Whether in its decoding or when its rows are taken."""
    seen: list[str] = []
    bodies, wrong, full, right = LongBodies(timeout_s=5), Request(), Request(), Request()

    def failing() -> Generator[None, None, Rows]:
        yield
        raise Problem(422, "wrong_type", "wrong")

    def refusing(_: Rows, __: float) -> None:
        raise Problem(503, "overloaded", "full")

    full.decoded = refusing  # type: ignore[method-assign]
    bodies.add(failing(), wrong)
    bodies.add(sliced("full", 1, seen), full)
    bodies.add(sliced("right", 1, seen), right)

    assert await right.result is ROWS
    assert [getattr(await _outcome(request), "status", None) for request in (wrong, full)] == [
        422,
        503,
    ]
