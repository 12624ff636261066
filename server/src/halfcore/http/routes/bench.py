"""Routes that measure what a request costs without its model: one does nothing, one only decodes.
Off unless `bench_routes` is set.

The load lab compares them with `/predict` to show where the time is spent. They use the same code
as a prediction: the same checks of the head, the same reading of the body, the same lane.
"""

import asyncio
from collections.abc import Callable

from litestar import Response, get

from halfcore.models.served import Models
from halfcore.predict.handler import Handler
from halfcore.predict.prediction import Send, json_headers, refusal
from halfcore.problem import Problem


def begins(models: Models) -> dict[str, Handler]:
    """Path → what answers its POSTs: `/bench/null` and `/bench/decode`."""

    def null(_: bytes) -> bytes:
        return b"{}"

    def decode(body: bytes) -> bytes:
        return b'{"rows":%d}' % models.get_default().decoder.decode(body).size

    return {"/bench/null": _Answered.by(null), "/bench/decode": _Answered.by(decode)}


@get("/bench/null", include_in_schema=False, sync_to_thread=False)
def null_by_get() -> Response[bytes]:
    """Does nothing for a request without a body: only HTTP and the app are measured."""
    return Response(b"{}", media_type="application/json")


class _Answered:
    """A request that was answered immediately."""

    @classmethod
    def by(cls, work: Callable[[bytes], bytes]) -> Handler:
        """Answer with the result of `work` for the body."""

        def begin(body: bytes, _request_id: str | None, send: Send, **_: object) -> _Answered:
            try:
                answer = work(body)
                send(200, json_headers(len(answer)), answer)
            except Problem as problem:
                send(*refusal(problem))
            return cls()

        return begin

    def waits_long(self) -> bool:
        """No: it is answered."""
        return False

    def watch(self, leaving: "asyncio.Future[None]") -> None:
        """Stop watching: the request is already answered."""
        leaving.cancel()

    def abandon(self) -> None:
        """Does nothing: the request is already answered."""
