"""What a request costs without its model: an answer to nothing, and one that only decodes. Off
unless `bench_routes` is set.

The load lab sets them beside `/predict` to show where the time goes. They take the same way as a
prediction: the same checks of the head, the same reading of the body, the same lane.
"""

from collections.abc import Callable

from litestar import Response, get

from halfcore.models.served import Models
from halfcore.predict.prediction import Send, json_headers, refusal
from halfcore.predict.predictor import Handler
from halfcore.problem import Problem


def begins(models: Models) -> dict[str, Handler]:
    """What answers POSTs of `/bench/null` and `/bench/decode`, by path."""

    def null(_: bytes) -> bytes:
        return b"{}"

    def decode(body: bytes) -> bytes:
        return b'{"rows":%d}' % models.get_default().decoder.decode(body).size

    return {"/bench/null": _Answered.by(null), "/bench/decode": _Answered.by(decode)}


@get("/bench/null", include_in_schema=False, sync_to_thread=False)
def null_by_get() -> Response[bytes]:
    """Nothing, to a request without a body: what is left is HTTP and the app."""
    return Response(b"{}", media_type="application/json")


class _Answered:
    """A request that was answered as it came."""

    @classmethod
    def by(cls, work: Callable[[bytes], bytes]) -> Handler:
        """Answer with what `work` makes of the body."""

        def begin(body: bytes, _request_id: str | None, send: Send) -> _Answered:
            try:
                answer = work(body)
                send(200, json_headers(len(answer)), answer)
            except Problem as problem:
                send(*refusal(problem))
            return cls()

        return begin

    def abandon(self) -> None:
        """Nothing is in progress."""
