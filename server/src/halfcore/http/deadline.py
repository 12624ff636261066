"""The body of a request on every route of the app: its time limit, because granian and Litestar set
none, and its end before it is complete, which Litestar answers with 500."""

import asyncio
from collections.abc import Callable
from typing import Any

from litestar.types import Receive

from halfcore.predict.body import client_left
from halfcore.problem import Problem


def receive_in_time(
    receive: Receive, *, timeout_s: float, too_slow: Callable[[], Problem]
) -> Receive:
    """Wrap `receive`: the body must be complete so many seconds from now, or `too_slow()` is
    raised; if it breaks off, the 400 of a client that left. Waiting for the client to leave
    afterwards has no limit."""
    end = asyncio.get_running_loop().time() + timeout_s
    complete = False

    async def receive_part() -> Any:
        nonlocal complete
        if complete:
            return await receive()
        try:
            async with asyncio.timeout_at(end):
                message: Any = await receive()
        except TimeoutError:
            raise too_slow() from None
        if message["type"] == "http.disconnect":
            raise client_left()
        complete = not message.get("more_body", False)
        return message

    return receive_part
