"""What `Allow` names, and HEAD, which works wherever GET does: it gets the same answer without its
body."""

from typing import Any

from litestar.types import Send


def without_body(send: Send) -> Send:
    """Wrap `send`: it sends an answer's head and an empty body, however the app sends the body."""
    ended = False

    async def send_head(message: Any) -> None:
        nonlocal ended
        if message["type"] == "http.response.start":
            await send(message)
        elif not ended:
            ended = True
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    return send_head


async def answer_for_server(send: Send) -> None:
    """Answer `OPTIONS *`: which methods some routes have (RFC 9110, 9.3.7)."""
    headers = [(b"allow", b"GET, HEAD, OPTIONS, POST")]
    await send({"type": "http.response.start", "status": 204, "headers": headers})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


def naming_head(send: Send) -> Send:
    """Wrap `send`: an answer's `Allow` names HEAD if it names GET."""

    async def send_named(message: Any) -> None:
        if message["type"] == "http.response.start":
            headers = [(name, _with_head(name, value)) for name, value in message["headers"]]
            message = message | {"headers": headers}
        await send(message)

    return send_named


def _with_head(name: bytes, value: bytes) -> bytes:
    return allowed(value.decode()).encode() if name.lower() == b"allow" else value


def allowed(methods: str) -> str:
    """The value of `Allow`: these methods, in order, and HEAD if GET is one of them."""
    names = {name.strip() for name in methods.split(",") if name.strip()}
    return ", ".join(sorted(names | {"HEAD"} if "GET" in names else names))
