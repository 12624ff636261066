"""The prediction routes in the Litestar app, for any ASGI server.

The handlers take the raw request: with a typed `data` Litestar would parse the body untyped,
convert it, and refuse a wrong one with a message that names no column.
"""

from collections.abc import Mapping
from typing import Any

from litestar import Request, post, route
from litestar.exceptions import NotFoundException
from litestar.params import FromPath
from litestar.response.base import ASGIResponse
from litestar.types import Receive, Send

from halfcore.http.routes.reading import collect
from halfcore.predict.admission import BINARY_HEADER, ENCODING_HEADER, Head, encoding_of
from halfcore.predict.body import Collected
from halfcore.predict.budget import LARGE_ANSWER_BYTES, Budget
from halfcore.predict.deadline import HEADER as TIMEOUT_HEADER
from halfcore.predict.handler import Handler
from halfcore.predict.keys import presented
from halfcore.predict.prediction import Answer
from halfcore.predict.predictor import Predictor
from halfcore.predict.protocols.paths import PREDICT
from halfcore.predict.trace import HEADER as TRACE_HEADER
from halfcore.predict.trace import trace_of


def routes(predictor: Predictor, hot: Mapping[str, Handler]) -> list[Any]:
    """Litestar handlers of the prediction routes, and of the other paths that the hot lane answers.

    `docs` documents the prediction routes, because their description depends on the models.
    """

    @post("/models/{name:str}/predict", include_in_schema=False)
    async def predict_with(request: Request[Any, Any, Any], name: FromPath[str]) -> ASGIResponse:
        return await _respond(predictor, predictor.usual(name), request)

    def handler(path: str, begin: Handler) -> Any:
        @post(path, include_in_schema=False, name=path)
        async def answer(request: Request[Any, Any, Any]) -> ASGIResponse:
            return await _respond(predictor, begin, request)

        return answer

    hot_paths = [handler(path, begin) for path, begin in hot.items()]
    return [predict_with, *_of_other_protocols(predictor), *hot_paths]


def _of_other_protocols(predictor: Predictor) -> list[Any]:
    async def translated(request: Request[Any, Any, Any], path: str) -> ASGIResponse:
        begin = predictor.translated(path)
        if begin is None:
            raise NotFoundException
        return await _respond(predictor, begin, request)

    @post("/endpoints/{name:str}/invocations", include_in_schema=False)
    async def invoke(request: Request[Any, Any, Any], name: FromPath[str]) -> ASGIResponse:
        return await translated(request, f"/endpoints/{name}/invocations")

    # The parameter's name is that of GET, so that all methods are one route's: see `Allow`. OPTIONS
    # is here because Litestar's own would name POST alone, whatever the name is.
    @route("/v1/models/{name:str}", http_method=["OPTIONS", "POST"], include_in_schema=False)
    async def predict_v1(request: Request[Any, Any, Any], name: FromPath[str]) -> ASGIResponse:
        if request.method == "OPTIONS":
            return _methods_v1(name)
        return await translated(request, f"/v1/models/{name}")

    @post("/v2/models/{name:str}/infer", include_in_schema=False)
    async def infer(request: Request[Any, Any, Any], name: FromPath[str]) -> ASGIResponse:
        return await translated(request, f"/v2/models/{name}/infer")

    @post("/v2/models/{name:str}/versions/{version:str}/infer", include_in_schema=False)
    async def infer_version(
        request: Request[Any, Any, Any], name: FromPath[str], version: FromPath[str]
    ) -> ASGIResponse:
        return await translated(request, f"/v2/models/{name}/versions/{version}/infer")

    return [invoke, predict_v1, infer, infer_version]


def _methods_v1(name: str) -> ASGIResponse:
    """What OPTIONS of a path of KServe's older protocol gets."""
    methods = "OPTIONS, POST" if name.endswith(PREDICT) else "GET, OPTIONS"
    return ASGIResponse(status_code=204, headers={"allow": methods})


async def _respond(
    predictor: Predictor, begin: Handler, request: Request[Any, Any, Any]
) -> ASGIResponse:
    reader = predictor.reader
    # Reversed, so that the first of equal names counts, as over RSGI.
    headers = dict(list(request.scope["headers"])[::-1])

    def text(name: str) -> str | None:
        return _text(headers.get(name.encode()))

    head = Head(
        text("content-type"),
        encoding_of(_all(request, ENCODING_HEADER), sent=ENCODING_HEADER.encode() in headers),
        text("content-length"),
        text("x-request-id"),
        text(BINARY_HEADER),
        transfer_encoding=text("transfer-encoding"),
        trace=trace_of(_all(request, TRACE_HEADER)),
        key=presented(text) if predictor.keys is not None else None,
        accept=text("accept"),
        timeout=text(TIMEOUT_HEADER),
    )
    receive = request.receive
    answer = await predictor.respond(
        begin,
        head,
        lambda hold: reader.in_time(collect(receive, Collected(reader.max_bytes, hold))),
        lambda: _disconnect(receive),
    )
    if len(answer.body) > LARGE_ANSWER_BYTES:
        return _Paced(answer, reader.budget)
    return ASGIResponse(body=answer.body, status_code=answer.status, headers=answer.headers)


class _Paced(ASGIResponse):
    """A large answer: given to the server in parts, as fast as it takes them, and reserved until it
    took the last one."""

    def __init__(self, answer: Answer, budget: Budget) -> None:
        super().__init__(body=answer.body, status_code=answer.status, headers=answer.headers)
        self._budget = budget

    async def send_body(self, send: Send, receive: Receive) -> None:  # noqa: ARG002  Litestar's
        """Send the body; see Litestar's own."""
        size = len(self.body)
        with self._budget.hold() as hold:
            hold.force(size)  # there was room for it when it was encoded
            for at in range(0, size, LARGE_ANSWER_BYTES):
                end = at + LARGE_ANSWER_BYTES
                await send(
                    {
                        "type": "http.response.body",
                        "body": self.body[at:end],
                        "more_body": end < size,
                    }
                )


async def _disconnect(receive: Receive) -> None:
    """Return when the client of a request, whose body was read, has left."""
    while (await receive())["type"] != "http.disconnect":
        pass


def _text(value: bytes | None) -> str | None:
    return value.decode() if value is not None and value.isascii() else None


def _all(request: Request[Any, Any, Any], name: str) -> list[str]:
    """The values of all headers of a name that are ASCII, as over RSGI."""
    key = name.encode()
    return [
        value.decode()
        for given, value in request.scope["headers"]
        if given == key and value.isascii()
    ]
