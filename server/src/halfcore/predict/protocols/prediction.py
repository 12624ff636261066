"""A prediction in another protocol: only reading the body and writing the answer differ."""

from collections.abc import Generator, Sequence
from math import inf
from time import perf_counter
from typing import NamedTuple

import orjson

from halfcore.models.answered import AnsweredRequest
from halfcore.models.served import LoadedModel
from halfcore.pipeline.decode import SHORT_BODY_BYTES, Rows, all_at_once
from halfcore.pipeline.engine import Result
from halfcore.predict.admission import Head
from halfcore.predict.budget import LARGE_ANSWER_BYTES
from halfcore.predict.prediction import Answer, Context, Fallback, Headers, Prediction, Send
from halfcore.predict.protocols.protocol import Call, Wire
from halfcore.problem import Problem


class Spoken(NamedTuple):
    """In which protocol a request was sent, and with which headers."""

    wire: Wire
    head: Head


class TranslatedPrediction(Prediction):
    """One request in another protocol; see `Prediction`."""

    __slots__ = ("_call", "_spoken")

    def __init__(
        self,
        spoken: Spoken,
        body: bytes,
        request_id: str | None,
        send: Send,
        context: Context,
        fallback: Fallback | None = None,
    ) -> None:
        super().__init__(body, request_id, send, context, fallback)
        self._spoken = spoken
        self._call: Call | None = None

    def start(self, model: LoadedModel) -> None:
        """Read the body for this model and queue its rows."""
        self._model = model
        start = self._start = perf_counter()
        wire, head = self._spoken
        try:
            if self._context.deadline != inf:
                self._expire_at(self._context.deadline)
            if len(self._body) > SHORT_BODY_BYTES:
                self._context.long_bodies.add(self._rows_of(model), self)
                return
            if (call := wire.quick(model, self._body, head)) is not None:
                rows = self._rows_in(call)
            else:
                rows = all_at_once(self._rows_of(model))
            self.decoded(rows, perf_counter() - start)
        except Exception as error:  # noqa: BLE001  every request is answered
            self.set_exception(error)

    def _rows_of(self, model: LoadedModel) -> Generator[None, None, Rows]:
        wire, head = self._spoken
        return self._rows_in((yield from wire.read(model, self._body, head, self._cover)))

    def _rows_in(self, call: Call) -> Rows:
        self._call = call
        if call.timeout_s:
            self._expire_at(min(self._context.deadline, self._start + call.timeout_s))
        return call.rows

    def _answer(self, results: Sequence[Result]) -> tuple[Headers, bytes]:
        model, call = self._model, self._call
        assert model is not None  # noqa: S101  for the type checker: `start` set both
        assert call is not None  # noqa: S101
        start = perf_counter()
        headers, body = self._spoken.wire.answer(model, results, call)
        end = perf_counter()
        model.metrics.encode.observe(end - start)
        if len(body) > LARGE_ANSWER_BYTES:
            self._cover(len(body))
        if self._context.on_answer is not None:
            self._context.on_answer(self._as_usual(model, call.rows, results, end - self._start))
        if self._context.server_timing:
            headers = [*headers, ("server-timing", self._timing(end - start))]
        return headers, body

    def _as_usual(
        self, model: LoadedModel, rows: Rows, results: Sequence[Result], latency_s: float
    ) -> AnsweredRequest:
        """The request and its answer as of `POST /predict`: the log has one form for all."""
        records = orjson.dumps(model.schema.records(rows.payload))
        answer = model.encoder.encode(results, many=True)
        return AnsweredRequest(
            model,
            self._request_id,
            records,
            rows,
            results,
            answer,
            latency_s,
            self._context.trace_id,
        )

    def _refusal(self, problem: Problem) -> Answer:
        return self._spoken.wire.refusal(problem)
