"""The prediction routes. `Predictor.respond` knows no protocol; the Litestar handlers below hand it the request and send what it says.

The handlers take the raw request: with a typed `data` Litestar would parse the body untyped, convert it, and answer a wrong one in words
that know nothing of columns.
"""

import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from time import perf_counter
from typing import Any, NamedTuple

from litestar import Request, post
from litestar.params import FromPath
from litestar.response.base import ASGIResponse

from halfcore.batcher import Overloaded, QueueTimeout, RunError
from halfcore.challenger import Challengers
from halfcore.codec.decode import Rows
from halfcore.engine import NotFiniteError, Result
from halfcore.errors import CONTENT_TYPE, Problem
from halfcore.log import logger
from halfcore.metrics import Metrics
from halfcore.models import LoadedModel, Models
from halfcore.routes.body import BodyReader, from_asgi, too_large
from halfcore.routes.request_id import HEADER, RequestIds

ROUTE = "predict"
_USUAL_TYPES = ("application/json", "application/json; charset=utf-8")
_CLOSE = {"connection": "close"}


class Head(NamedTuple):
    """What of a request's head decides whether its body is read; None where the header is absent."""

    content_type: str | None
    content_encoding: str | None
    content_length: str | None
    request_id: str | None = None


class Answer(NamedTuple):
    """A complete response."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes


Read = Callable[[], Awaitable[bytes]]
"""Reads a request's body; raises `Problem` if it is too large, too slow or broken off."""
Witness = Callable[[LoadedModel, str | None, bytes, Rows, Sequence[Result], bytes, float], None]
"""Told of every answered prediction: model, the client's request id, body, rows, results, answer, and the seconds it took."""
Respond = Callable[[Head, Read], Awaitable[Answer]]
"""Answers a POST, whatever happens."""


class Predictor:
    """Answers prediction requests from the served models.

    Args:
        reader: reads bodies within a size and a time.
        server_timing: tell each stage's milliseconds in the answer's `Server-Timing` header.
        max_in_flight: requests in progress, those whose body is awaited included; 0: any number.
        witness: told of every answered prediction; it neither fails nor waits.
        challengers: of whom canaries answer a share of the requests.
    """

    def __init__(
        self,
        models: Models,
        metrics: Metrics,
        reader: BodyReader,
        *,
        server_timing: bool,
        max_in_flight: int,
        witness: Witness | None = None,
        challengers: Challengers | None = None,
    ) -> None:
        self._witness = witness
        self._challengers = challengers if challengers and challengers.canaries else None
        self._models = models
        self._metrics = metrics
        self._server_timing = server_timing
        self._max_in_flight = max_in_flight or sys.maxsize
        self._in_flight = 0
        self.wants_ids = witness is not None or bool(challengers)
        """Whether anybody reads the requests' ids."""
        self._ids = RequestIds() if self.wants_ids else None
        self.reader = reader

    def choose(self, name: str | None) -> LoadedModel:
        """The model of the path, or the default one; raises `Problem` if there is none."""
        return self._models.get_default() if name is None else self._models.get(name)

    async def respond(self, name: str | None, head: Head, read: Read) -> Answer:
        """The answer to a POST of a prediction route, whatever happens.

        Args:
            name: the model of the path; None is the default model.
            head: what of the request's head decides whether its body is read.
            read: reads the body; raises `Problem` if it is too large or too slow.
        """
        model = None
        request_id = None if self._ids is None else self._ids.of(head.request_id)
        self._in_flight += 1
        try:
            if self._in_flight > self._max_in_flight:
                raise Problem(503, "overloaded", f"{self._max_in_flight} requests are in progress, the most there may be", retry_after_s=1)
            check_head(head, max_body_bytes=self.reader.max_bytes)
            model = self._models.get_default() if name is None else self._models.get(name)
            body = await read()
            answer = await self._ask_canary(model, body, head.request_id, request_id) if self._challengers is not None else None
            if answer is None:
                answer = await self.predict(model, body, request_id)
        except Problem as problem:
            return self._refusal(problem, model, request_id)
        except Exception as error:  # noqa: BLE001  the client gets a bare 500, the log the rest
            logger.error("a request failed unexpectedly", exc_info=error)
            return self._refusal(Problem(500, "internal_error", "the server failed on this request"), model, request_id)
        finally:
            self._in_flight -= 1
        self._metrics.count(ROUTE, model.manifest.name, "200")
        if request_id is not None:
            answer.headers.append((HEADER, request_id))
        return answer

    async def predict(self, model: LoadedModel, body: bytes, request_id: str | None = None) -> Answer:
        """Decode, batch, infer, encode.

        Cancelling is safe: the rows leave the queue. Waits as `Batcher.infer` does.

        Raises:
            Problem: the request is wrong, the queue is full or too slow, or the model failed.
        """
        start = began = perf_counter()
        rows = model.decoder.decode(body)
        decode_s = perf_counter() - start
        model.metrics.decode.observe(decode_s)
        try:
            job = model.batcher.submit(rows.payload, rows.size)
            results = await model.batcher.wait(job)
        except Overloaded as error:
            raise Problem(503, "overloaded", str(error), retry_after_s=1) from None
        except QueueTimeout as error:
            raise Problem(503, "queue_timeout", str(error), retry_after_s=1) from None
        except RunError as error:
            if isinstance(error.__cause__, NotFiniteError):
                raise Problem(422, "no_finite_answer", "the model has no finite answer to these values") from None
            logger.error("the model failed on a request", exc_info=error, extra={"model": model.manifest.name})
            raise Problem(500, "model_failed", "the model failed on these rows") from None
        start = perf_counter()
        encoded = model.encoder.encode(results, many=rows.many)
        encode_s = perf_counter() - start
        model.metrics.encode.observe(encode_s)
        if self._witness is not None:
            self._witness(model, request_id, body, rows, results, encoded, start + encode_s - began)
        answer = json_answer(encoded)
        if self._server_timing:
            answer.headers.append(("server-timing", _timing(decode=decode_s, queue=job.waited_s, infer=job.ran_s, encode=encode_s)))
        return answer

    async def _ask_canary(self, champion: LoadedModel, body: bytes, given: str | None, request_id: str | None) -> Answer | None:
        """The canary's answer; None if this request is not in its share, or if it cannot answer: then the champion does.

        The share is drawn by the id that the client has given; one that was made for it says nothing of the client.
        """
        assert self._challengers is not None  # noqa: S101  for the type checker: the caller looked
        canary = self._challengers.pick(champion, given)
        if canary is None:
            return None
        try:
            answer = await self.predict(canary, body, request_id)
        except Problem:
            self._challengers.count(champion.manifest.name, "canary", "fell_back")
            return None
        self._challengers.count(champion.manifest.name, "canary", "answered")
        return answer

    def _refusal(self, problem: Problem, model: LoadedModel | None, request_id: str | None) -> Answer:
        self._metrics.count(ROUTE, model.manifest.name if model else "", problem.code)
        answer = refusal(problem)
        if request_id is not None:
            answer.headers.append((HEADER, request_id))
        return answer


def refusal(problem: Problem) -> Answer:
    """The answer that tells a problem."""
    body = problem.body()
    headers = [("content-type", CONTENT_TYPE), ("content-length", str(len(body))), *problem.headers.items()]
    return Answer(problem.status, headers, body)


def json_answer(body: bytes) -> Answer:
    """A 200 with this JSON."""
    return Answer(200, [("content-type", "application/json"), ("content-length", str(len(body)))], body)


def check_head(head: Head, *, max_body_bytes: int) -> None:
    """Refuse by the request's head alone what need not be read.

    Raises:
        Problem: 413 or 415; the connection is closed, for the body is not wanted.
    """
    if head.content_type not in _USUAL_TYPES and not _is_json(head.content_type):
        found = (head.content_type or "none")[:80]
        raise Problem(415, "unsupported_media_type", f"Content-Type {found} came, expected application/json", headers=_CLOSE)
    if head.content_encoding is not None and head.content_encoding != "identity":
        found = head.content_encoding[:80]
        raise Problem(415, "unsupported_encoding", f"Content-Encoding {found} came, expected none", headers=_CLOSE)
    length = head.content_length
    if length is not None and length.isdecimal() and (len(length) > 18 or int(length) > max_body_bytes):  # int() refuses 4,301 digits
        raise too_large(max_body_bytes)


def routes(predictor: Predictor, responders: Mapping[str, Respond]) -> list[Any]:
    """Litestar handlers of the prediction routes, and of the other paths that the hot lane answers.

    The documentation of the prediction routes is made by `docs`, for it depends on the models.
    """
    reader = predictor.reader

    @post("/models/{name:str}/predict", include_in_schema=False)
    async def predict_with(request: Request[Any, Any, Any], name: FromPath[str]) -> ASGIResponse:
        return await _respond(partial(predictor.respond, name), reader, request)

    def handler(path: str, respond: Respond) -> Any:
        @post(path, include_in_schema=False, name=path)
        async def answer(request: Request[Any, Any, Any]) -> ASGIResponse:
            return await _respond(respond, reader, request)

        return answer

    return [predict_with, *(handler(path, respond) for path, respond in responders.items())]


async def _respond(respond: Respond, reader: BodyReader, request: Request[Any, Any, Any]) -> ASGIResponse:
    headers = dict(list(request.scope["headers"])[::-1])  # the first of equal names counts, as over RSGI
    head = Head(*[_text(headers.get(key)) for key in (b"content-type", b"content-encoding", b"content-length", b"x-request-id")])
    answer = await respond(head, lambda: reader.in_time(from_asgi(request.receive, reader.max_bytes)))
    return ASGIResponse(body=answer.body, status_code=answer.status, headers=answer.headers)


def _timing(**stages_s: float) -> str:
    """W3C Server-Timing, in milliseconds."""
    return ", ".join(f"{stage};dur={seconds * 1000:.3f}" for stage, seconds in stages_s.items())


def _text(value: bytes | None) -> str | None:
    return value.decode() if value is not None and value.isascii() else None


def _is_json(content_type: str | None) -> bool:
    """Whether a media type is JSON in UTF-8, however it is spelled."""
    if content_type is None:
        return False
    kind, _, parameters = content_type.lower().partition(";")
    charset = parameters.replace(" ", "").replace('"', "")
    return kind.strip() == "application/json" and charset in ("", "charset=utf-8", "charset=utf8")
