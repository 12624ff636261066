"""One prediction between its body and its answer: decode, queue, encode, send. No coroutine, no
task, no future.

`Prediction` stands in the batcher's queue itself, as a `jobs.Waiter`: when its rows come back it
encodes and sends then and there. A task that awaits a future would cost each request two turns of
the event loop and more Python than decoding and encoding together (docs/decisions/0014).
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from time import perf_counter
from typing import NamedTuple

from halfcore.log import logger
from halfcore.models.served import LoadedModel
from halfcore.pipeline.decode import SHORT_BODY_BYTES, Rows
from halfcore.pipeline.engine import NotFiniteError, Result
from halfcore.pipeline.jobs import Job, Overloaded, QueueTimeout, RunError
from halfcore.predict.long_bodies import LongBodies
from halfcore.problem import CONTENT_TYPE, Problem

Headers = list[tuple[str, str]]
Send = Callable[[int, Headers, bytes], None]
"""Sends a complete response: status, headers, body. Called once per request."""
Witness = Callable[[LoadedModel, str | None, bytes, Rows, Sequence[Result], bytes, float], None]
"""Told of every answered prediction: model, the client's request id, body, rows, results, answer,
and the seconds it took."""


class Answer(NamedTuple):
    """A complete response."""

    status: int
    headers: Headers
    body: bytes


class Terms(NamedTuple):
    """What holds for all predictions of a kind.

    Attributes:
        over: told once per request that it ended, with the model that it was for and how: `200`, a
            problem's code, or empty if nobody waited for it any more.
        witness: told of each right answer; it neither fails nor waits.
        server_timing: tell each stage's milliseconds in the answer's `Server-Timing` header.
        long_bodies: decodes the bodies that are too long to be decoded at once.
    """

    over: Callable[[LoadedModel | None, str], None]
    witness: Witness | None
    server_timing: bool
    long_bodies: LongBodies


class Prediction:
    """One request whose body is here; it is answered exactly once, whatever happens.

    Args:
        body: the request's.
        request_id: the client's, if anybody reads it.
        send: takes the answer.
        terms: of its kind.
        fallback: begins another prediction that answers in this one's place, if this one cannot;
            else it refuses itself.
    """

    __slots__ = (
        "_body",
        "_decode_s",
        "_fallback",
        "_job",
        "_model",
        "_request_id",
        "_rows",
        "_send",
        "_start",
        "_successor",
        "_terms",
        "_waits",
    )

    def __init__(
        self,
        body: bytes,
        request_id: str | None,
        send: Send,
        terms: Terms,
        fallback: "Callable[[], Prediction] | None" = None,
    ) -> None:
        self._body = body
        self._request_id = request_id
        self._send = send
        self._terms = terms
        self._fallback = fallback
        self._successor: Prediction | None = None
        self._model: LoadedModel | None = None
        self._job: Job[Result] | None = None
        self._waits = True

    def ask(self, model: LoadedModel) -> None:
        """Decode the body for this model and queue its rows; the answer may be sent before this
        returns."""
        self._model = model
        start = self._start = perf_counter()
        try:
            if len(self._body) > SHORT_BODY_BYTES:
                self._terms.long_bodies.add(model.decoder.steps(self._body), self)
            else:
                rows = model.decoder.decode(self._body)
                self.decoded(rows, perf_counter() - start)
        except Exception as error:  # noqa: BLE001  every request is answered
            self.set_exception(error)

    def decoded(self, rows: Rows, seconds: float) -> None:
        """Queue the rows, whose decoding took so long; the answer may be sent before this
        returns."""
        model = self._model
        assert model is not None  # noqa: S101  for the type checker: `ask` set it
        self._rows = rows
        self._decode_s = seconds
        model.metrics.decode.observe(seconds)
        job = self._job = Job(rows.payload, rows.size, self)
        model.batcher.enqueue(job)

    def done(self) -> bool:
        """Whether it ended: its rows need not be run."""
        return not self._waits

    def cancel(self) -> None:
        """End without an answer, if it has none yet: nobody waits for one."""
        if self._waits:
            self._end()
            self._terms.over(self._model, "")

    def leave(self) -> None:
        """The client left: the rows leave the queue."""
        if self._successor is not None:
            self._successor.leave()
        elif self._waits and self._model is not None and self._job is not None:
            self._model.batcher.forget(self._job)
        self.cancel()

    def set_result(self, results: Sequence[Result]) -> None:
        """Encode and send."""
        model, terms, rows = self._model, self._terms, self._rows
        assert model is not None  # noqa: S101  for the type checker: `ask` set it
        try:
            start = perf_counter()
            body = model.encoder.encode(results, many=rows.many)
            end = perf_counter()
            model.metrics.encode.observe(end - start)
            if terms.witness is not None:
                terms.witness(
                    model, self._request_id, self._body, rows, results, body, end - self._start
                )
            headers = json_headers(len(body))
            if terms.server_timing:
                headers = [*headers, ("server-timing", self._timing(end - start))]
        except Exception as error:  # noqa: BLE001  every request is answered
            self.set_exception(error)
            return
        self._end()
        terms.over(model, "200")
        self._send(200, headers, body)

    def set_exception(self, error: Exception) -> None:
        """Let the fallback answer, or refuse in the protocol's own words."""
        if self._fallback is not None:
            self._end()
            self._successor = self._fallback()
            return
        self.refuse(error if isinstance(error, Problem) else self._as_problem(error))

    def refuse(self, problem: Problem) -> None:
        """Send a problem."""
        self._end()
        self._terms.over(self._model, problem.code)
        self._send(*refusal(problem))

    def _end(self) -> None:
        """Nobody waits any more. The job has to go: in a circle with this it would keep the body
        until the garbage collector came."""
        self._waits = False
        self._job = None

    def _timing(self, encode_s: float) -> str:
        """W3C Server-Timing, in milliseconds."""
        assert self._job is not None  # noqa: S101  for the type checker: `ask` set it
        stages = {
            "decode": self._decode_s,
            "queue": self._job.waited_s,
            "infer": self._job.ran_s,
            "encode": encode_s,
        }
        return ", ".join(f"{stage};dur={seconds * 1000:.3f}" for stage, seconds in stages.items())

    def _as_problem(self, error: Exception) -> Problem:
        name = self._model.manifest.name if self._model else ""
        if isinstance(error, Overloaded):
            return Problem(503, "overloaded", str(error), retry_after_s=1)
        if isinstance(error, QueueTimeout):
            return Problem(503, "queue_timeout", str(error), retry_after_s=1)
        if isinstance(error.__cause__, NotFiniteError):
            return Problem(
                422, "no_finite_answer", "the model has no finite answer to these values"
            )
        if isinstance(error, RunError):
            logger.error("the model failed on a request", exc_info=error, extra={"model": name})
            return Problem(500, "model_failed", "the model failed on these rows")
        return unexpected(error)


def unexpected(error: Exception) -> Problem:
    """A bare 500 for the client, the rest for the log."""
    logger.error("a request failed unexpectedly", exc_info=error)
    return Problem(500, "internal_error", "the server failed on this request")


def refusal(problem: Problem) -> Answer:
    """The answer that tells a problem."""
    body = problem.body()
    headers = [
        ("content-type", CONTENT_TYPE),
        ("content-length", str(len(body))),
        *problem.headers.items(),
    ]
    return Answer(problem.status, headers, body)


@lru_cache(4096)
def json_headers(length: int) -> Headers:
    """The headers of a 200 with JSON of so many bytes; shared by all such answers."""
    return [("content-type", "application/json"), ("content-length", str(length))]
