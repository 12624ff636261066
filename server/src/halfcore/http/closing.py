"""Answers that close their connection, while the server drains: their clients then connect again,
elsewhere or to a listener that is still open, and no request is on its way when connections are
closed."""

from typing import Any

from litestar.types import Send as AsgiSend

from halfcore.predict.prediction import Headers, Send

_CLOSE = ("connection", "close")


def closing(send: Send) -> Send:
    """Wrap what sends a whole answer: it also closes the connection."""

    def send_and_close(status: int, headers: Headers, body: bytes) -> None:
        # A new list: answers of one length share theirs.
        send(status, headers if _CLOSE in headers else [*headers, _CLOSE], body)

    return send_and_close


def closing_asgi(send: AsgiSend) -> AsgiSend:
    """The same for ASGI."""

    async def send_and_close(message: Any) -> None:
        if message["type"] == "http.response.start":
            others = [pair for pair in message["headers"] if pair[0].lower() != b"connection"]
            message = message | {"headers": [*others, (b"connection", b"close")]}
        await send(message)

    return send_and_close
