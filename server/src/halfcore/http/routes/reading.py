"""Reads the bodies of the routes that are no predictions: small, in time, and within the budget."""

from typing import Any

from litestar import Request
from litestar.types import Receive

from halfcore.predict.admission import MOST_DIGITS
from halfcore.predict.body import BodyReader, Collected, client_left, too_large


async def body_of(request: Request[Any, Any, Any], reader: BodyReader, max_bytes: int) -> bytes:
    """The body of a request.

    Args:
        request: whose body was not read yet.
        reader: has the budget, and the time that a body may take.
        max_bytes: largest body.

    Raises:
        Problem: 413, before anything is read if its length is announced; 408, 503; 400 if the
            client left.
    """
    length = request.headers.get("content-length", "")
    if length.isdecimal() and (len(length) > MOST_DIGITS or int(length) > max_bytes):
        raise too_large(max_bytes)
    with reader.budget.hold() as hold:
        return await reader.in_time(collect(request.receive, Collected(max_bytes, hold)))


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
