"""What a request costs without its model: an answer to nothing, and one that only decodes. Off unless `bench_routes` is set.

The load lab sets them beside `/predict` to show where the time goes. They take the same way as a prediction: the same checks of the head,
the same reading of the body, the same lane.
"""

from collections.abc import Callable

from halfcore.errors import Problem
from halfcore.models import Models
from halfcore.routes.predict import Answer, Head, Read, Respond, check_head, json_answer, refusal


def responders(models: Models, *, max_body_bytes: int) -> dict[str, Respond]:
    """What answers POSTs of `/bench/null` and `/bench/decode`, by path."""

    def null(_: bytes) -> bytes:
        return b"{}"

    def decode(body: bytes) -> bytes:
        return b'{"rows":%d}' % models.get_default().decoder.decode(body).size

    def responder(work: Callable[[bytes], bytes]) -> Respond:
        async def respond(head: Head, read: Read) -> Answer:
            try:
                check_head(head, max_body_bytes=max_body_bytes)
                return json_answer(work(await read()))
            except Problem as problem:
                return refusal(problem)

        return respond

    return {"/bench/null": responder(null), "/bench/decode": responder(decode)}
