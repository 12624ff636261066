"""Reads the bodies of the routes that are no predictions: small, in time, and within the budget."""

import asyncio
from contextlib import suppress
from typing import Any

from litestar import Request
from litestar.types import Receive

from halfcore.predict.admission import MOST_DIGITS
from halfcore.predict.body import BodyReader, Collected, client_left, too_large

MOST_DISCARDED_BYTES, DISCARD_S = 1 << 20, 1.0
"""Longest body that is thrown away before it is refused, and for how long: a client that still
sends when its connection is closed gets a reset instead of the answer."""


async def body_of(request: Request[Any, Any, Any], reader: BodyReader, max_bytes: int) -> bytes:
    """The body of a request.

    Args:
        request: whose body was not read yet.
        reader: has the budget, and the time that a body may take.
        max_bytes: largest body.

    Raises:
        Problem: 413, without keeping any of it if its length is announced; 408, 503; 400 if the
            client left.
    """
    length = request.headers.get("content-length", "")
    if length.isdecimal() and (len(length) > MOST_DIGITS or int(length) > max_bytes):
        if len(length) <= MOST_DIGITS and int(length) <= MOST_DISCARDED_BYTES:
            await _discard(request.receive)
        raise too_large(max_bytes)
    with reader.budget.hold() as hold:
        return await reader.in_time(collect(request.receive, Collected(max_bytes, hold)))


async def _discard(receive: Receive) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(DISCARD_S):
            while (message := await receive())["type"] == "http.request":
                if not message.get("more_body"):
                    return


async def collect(receive: Receive, collected: Collected) -> bytes:
    """Collect an ASGI request's body.

    Raises:
        Problem: see `Collected`; 400 if the client left.
    """
    while (message := await receive())["type"] == "http.request":
        collected.add(message["body"])
        if not message.get("more_body"):
            return collected.body()
    raise client_left()
