"""The calls: each reads one message in time, and is answered with a message or a status.

Every call is registered as one whose requests are a stream, because only then does a handler run
before the message has arrived. So a call is refused, or ends as too slow, before its message is in
memory, as over HTTP. For a client there is no difference: on the wire a single message is a stream
of one.
"""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from math import inf
from time import perf_counter
from typing import Any

import grpc

from halfcore.models.served import Models
from halfcore.predict.admission import Head
from halfcore.predict.body import BodyReader
from halfcore.predict.handler import InProgress
from halfcore.predict.keys import presented
from halfcore.predict.prediction import Answer, Send, unexpected
from halfcore.predict.predictor import Predictor, Translated
from halfcore.predict.protocols import about
from halfcore.predict.protocols.inference import check_version, describe
from halfcore.predict.protocols.prediction import Spoken, TranslatedPrediction
from halfcore.predict.protocols.tensors import bad
from halfcore.predict.request_id import HEADER
from halfcore.predict.trace import HEADER as TRACE_HEADER
from halfcore.predict.trace import Trace, trace_of
from halfcore.problem import Problem
from halfcore.rpc import envelope
from halfcore.rpc.messages import message
from halfcore.rpc.wire import Infer, parsed

INFERENCE, HEALTH = "inference.GRPCInferenceService", "grpc.health.v1.Health"
LIVE = "live"
"""A health check's service that is serving as long as the event loop turns."""
_OK = 200
_SERVING, _NOT_SERVING = 1, 2
"""Of `HealthCheckResponse.ServingStatus`."""
_STATUS = {code.value[0]: code for code in grpc.StatusCode}
Method = Callable[[object, Any], Awaitable[bytes]]
"""Answers a call: unused, and the call's context. Returns a serialized message."""
Fields = dict[str, Any]


class Accepted:
    """How many calls were accepted."""

    count = 0


def handlers(predictor: Predictor, models: Models, accepted: Accepted) -> list[Any]:
    """The handlers of both services, for a server.

    Args:
        predictor: answers predictions.
        models: the served models.
        accepted: counts the predictions that begin.
    """
    calls = _Calls(models)
    inference = {
        name: _answering(predictor.reader, "inference.", name, answer)
        for name, answer in calls.by_name.items()
    }
    health = {"Check": _answering(predictor.reader, "grpc.health.v1.", "HealthCheck", calls.check)}
    inference["ModelInfer"] = partial(_infer, predictor, accepted)
    return [
        grpc.method_handlers_generic_handler(
            service,
            {name: grpc.stream_unary_rpc_method_handler(m) for name, m in methods.items()},
        )
        for service, methods in ((INFERENCE, inference), (HEALTH, health))
    ]


class _Addressed(Translated):
    """Answers a request that names its model itself; see `Translated`."""

    model_in_body = True

    def __init__(self, predictor: Predictor, wire: Infer, head: Head) -> None:
        super().__init__(predictor, wire, None, head)
        self._head = head

    def __call__(
        self,
        body: bytes,
        request_id: str | None,
        send: Send,
        /,
        *,
        trace: Trace | None = None,
        deadline: float = inf,
    ) -> InProgress:
        """See `handler.Handler`."""
        try:
            name, version = envelope.read(body)
            self._predictor.check_key(self._head, name)
        except Problem as problem:
            send(*self._predictor.refuse(problem, request_id, self.wire, trace))
            return _Ended()
        make = partial(TranslatedPrediction, Spoken(Infer(version), self._head))
        return self._predictor.begin(name, body, request_id, send, make, trace, deadline)

    def with_head(self, head: Head) -> Translated:
        """The same for one call."""
        return _Addressed(self._predictor, Infer(), head)


class _Ended:
    """A request that was answered at once."""

    def waits_long(self) -> bool:
        """No: it is answered."""
        return False

    def watch(self, leaving: asyncio.Future[None]) -> None:
        """Stop watching: nothing is in progress."""
        leaving.cancel()

    def abandon(self) -> None:
        """Nothing is in progress."""


async def _infer(predictor: Predictor, accepted: Accepted, _: object, context: Any) -> bytes:
    """Answer `ModelInfer`. If the client cancels or its deadline passes, gRPC cancels this, and the
    rows leave the queue; if the event loop is late, they are not run all the same."""
    accepted.count += 1
    left_s = context.time_remaining()
    deadline = inf if left_s is None else perf_counter() + left_s
    sent = [(name, value) for name, value in context.invocation_metadata() or ()]
    first = {name: value for name, value in reversed(sent) if isinstance(value, str)}
    request_id = first.get(HEADER) if predictor.wants_ids else None
    key = presented(first.get) if predictor.keys is not None else None
    trace = trace_of([value for name, value in sent if name == TRACE_HEADER])
    head = Head(None, None, None, request_id, trace=trace, key=key, deadline=deadline)
    if predictor.keys is not None:  # the model is in the message, which is not read yet
        try:
            predictor.keys.check(key, None)
        except Problem as problem:
            return await _finish(context, predictor.refuse(problem, request_id, Infer()))
    handler = _Addressed(predictor, Infer(), head)
    answer = await predictor.respond(handler, head, lambda _: _read(predictor.reader, context))
    return await _finish(context, answer)


def _answering(
    reader: BodyReader, package: str, name: str, answer: Callable[[Any], Fields]
) -> Method:
    """The method that answers a call about the server.

    Args:
        reader: limits the time of reading.
        package: of the messages.
        name: the messages are `nameRequest` and `nameResponse`.
        answer: returns the response's fields; raises `Problem`.
    """
    respond = message(f"{package}{name}Response")

    async def method(_: object, context: Any) -> bytes:
        try:
            request = parsed(f"{package}{name}Request", await _read(reader, context))
            found = Answer(_OK, [], respond(**answer(request)).SerializeToString())
        except Problem as problem:
            found = Infer().refusal(problem)
        except Exception as error:  # noqa: BLE001  the client gets no details, the log does
            found = Infer().refusal(unexpected(error))
        return await _finish(context, found)

    return method


async def _read(reader: BodyReader, context: Any) -> bytes:
    """The call's message; raises `Problem`: there is none, or it is too slow."""
    body = await reader.in_time(context.read())
    if not isinstance(body, bytes):
        raise bad("the call has no message, expected one")
    return body


async def _finish(context: Any, answer: Answer) -> bytes:
    """Return the message of an answer; a refusal ends the call here."""
    if answer.status != _OK:
        await context.abort(_STATUS[answer.status], answer.body.decode(), tuple(answer.headers))
    if answer.headers:
        context.set_trailing_metadata(tuple(answer.headers))
    return answer.body


class _Calls:
    """What the calls about the server and its models answer: the fields of their responses.

    Args:
        models: the served models.
    """

    def __init__(self, models: Models) -> None:
        self._models = models
        self.by_name: dict[str, Callable[[Any], Fields]] = {
            "ServerLive": lambda _: {"live": True},
            "ServerReady": lambda _: {"ready": models.ready},
            "ServerMetadata": lambda _: about.server("classification"),
            "ModelReady": self._model_ready,
            "ModelMetadata": self._model_metadata,
            "RepositoryIndex": self._index,
        }

    def check(self, request: Any) -> Fields:
        """gRPC's health check; raises `Problem`, 404, if it names no service and no model."""
        name = request.service
        serving = name == LIVE
        if name in ("", INFERENCE):
            serving = self._models.ready
        elif name != LIVE:
            serving = self._is_served(name)
        return {"status": _SERVING if serving else _NOT_SERVING}

    def _is_served(self, name: str) -> bool:
        """Whether a model answers; raises `Problem`, 404, if there is none of that name."""
        try:
            self._models.get(name)
        except Problem as problem:
            if problem.status != 503:
                raise
            return False
        return True

    def _model_ready(self, request: Any) -> Fields:
        ready = self._is_served(request.name)
        if ready:
            check_version(self._models.get(request.name), request.version or None)
        return {"ready": ready}

    def _model_metadata(self, request: Any) -> Fields:
        model = self._models.get(request.name)
        check_version(model, request.version or None)
        return describe(model)

    def _index(self, request: Any) -> Fields:
        return {"models": about.index(self._models, only_ready=request.ready)}
