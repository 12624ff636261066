"""One prediction from its body to its answer: decode, queue, encode, send.

There is no coroutine, task or future per request. `Prediction` is a `jobs.Waiter`: when its
results are ready, it encodes and sends them in the same call. A task that awaits a future would
cost each request two turns of the event loop and more Python than decoding and encoding together
(docs/decisions/0014).
"""

from asyncio import Future, TimerHandle, get_running_loop
from collections.abc import Callable, Sequence
from functools import lru_cache
from math import inf
from time import perf_counter
from typing import NamedTuple

from halfcore.log import logger
from halfcore.models.answered import AnsweredRequest
from halfcore.models.served import LoadedModel
from halfcore.pipeline.decode import SHORT_BODY_BYTES, Rows
from halfcore.pipeline.engine import NotFiniteError, Result
from halfcore.pipeline.jobs import DeadlineExceeded, Job, Overloaded, QueueTimeout, RunError
from halfcore.predict.body import CLIENT_LEFT
from halfcore.predict.budget import LARGE_ANSWER_BYTES, SMALL_BYTES, Budget, Hold
from halfcore.predict.deadline import DEADLINE_EXCEEDED, exceeded
from halfcore.predict.long_bodies import LongBodies
from halfcore.problem import CONTENT_TYPE, Problem

Headers = list[tuple[str, str]]
Send = Callable[[int, Headers, bytes], None]
"""Sends a complete response: status, headers, body. Called once per request."""
LONG_WAIT_S = 0.05
"""From this expected wait on, it is worth noticing that a client leaves: to watch a connection
costs as much CPU time as to answer a short request."""
EARLY_S = 0.02
"""A client that leaves so shortly before its deadline left because of it: its own clock, or gRPC's,
began earlier."""
OnAnswer = Callable[[AnsweredRequest], None]
"""Called for every prediction that was answered with 200; it neither fails nor waits."""
Fallback = Callable[[Exception, float], "Prediction"]
"""Starts another prediction because of this error, with the same deadline."""


class Answer(NamedTuple):
    """A complete response."""

    status: int
    headers: Headers
    body: bytes


class Context(NamedTuple):
    """What the predictions of one worker share."""

    on_end: Callable[[LoadedModel | None, str], None]
    """Called once per request with its model and its outcome: `200`, a problem's code, or an empty
    text if the server stopped the request."""
    on_answer: OnAnswer | None
    server_timing: bool
    """Report each stage's milliseconds in the answer's `Server-Timing` header."""
    long_bodies: LongBodies
    """Decodes the bodies that are too long to decode in one turn of the event loop."""
    budget: Budget
    """Of which the memory of many rows and of a large answer is reserved."""
    trace_id: str | None = None
    """The id of the trace that the request belongs to, if its client sent one."""
    deadline: float = inf
    """Of the request: see `deadline`."""


class Prediction:
    """One request whose body has arrived; it is answered exactly once, whatever happens.

    Args:
        body: the request's body.
        request_id: the request's id, if something reads it.
        send: sends the answer.
        context: what all predictions share.
        fallback: starts another prediction, which answers if this one fails; without it, a failure
            is answered with a problem.
    """

    __slots__ = (
        "_active",
        "_body",
        "_context",
        "_decode_s",
        "_fallback",
        "_hold",
        "_job",
        "_leaving",
        "_model",
        "_replacement",
        "_request_id",
        "_rows",
        "_send",
        "_start",
        "_timer",
    )

    def __init__(
        self,
        body: bytes,
        request_id: str | None,
        send: Send,
        context: Context,
        fallback: Fallback | None = None,
    ) -> None:
        self._body = body
        self._request_id = request_id
        self._send = send
        self._context = context
        self._fallback = fallback
        self._replacement: Prediction | None = None
        self._model: LoadedModel | None = None
        self._job: Job[Result] | None = None
        self._leaving: Future[None] | None = None
        self._hold: Hold | None = None
        self._timer: TimerHandle | None = None
        self._active = True

    def start(self, model: LoadedModel) -> None:
        """Decode the body for this model and queue its rows. The answer may be sent before this
        returns."""
        self._model = model
        start = self._start = perf_counter()
        try:
            if self._context.deadline != inf:
                self._expire_at(self._context.deadline)
            if len(self._body) > SHORT_BODY_BYTES:
                self._context.long_bodies.add(model.decoder.steps(self._body), self)
            else:
                rows = model.decoder.decode(self._body)
                self.decoded(rows, perf_counter() - start)
        except Exception as error:  # noqa: BLE001  every request is answered
            self.set_exception(error)

    def decoded(self, rows: Rows, seconds: float) -> None:
        """Queue the rows; decoding them took `seconds`. The answer may be sent before this
        returns."""
        model = self._model
        assert model is not None  # noqa: S101  for the type checker: `start` set it
        self._rows = rows
        self._decode_s = seconds
        model.metrics.decode.observe(seconds)
        if len(rows.payload) > SMALL_BYTES:
            self._cover(len(rows.payload))
        job = self._job = Job(rows.payload, rows.size, self, self._context.deadline)
        model.batcher.enqueue(job)

    def done(self) -> bool:
        """Whether the request has ended, so that its rows need not be run."""
        return not self._active

    def cancel(self) -> None:
        """End without an answer, if none was sent yet."""
        if self._active:
            self._end()
            self._context.on_end(self._model, "")

    def waits_long(self) -> bool:
        """Whether the answer is expected so late that the client may leave before it: its body is
        decoded in slices, or many rows wait."""
        if not self._active:
            return False
        if self._model is None or self._job is None:
            return True
        return self._model.batcher.expected_wait_s > LONG_WAIT_S

    def watch(self, leaving: "Future[None]") -> None:
        """Abandon the request when `leaving` is done; it is cancelled when the request ends."""
        if not self._active:
            leaving.cancel()
            return
        self._leaving = leaving
        leaving.add_done_callback(self._on_leaving)

    def abandon(self) -> None:
        """The client left: take the rows out of the queue, and release the body."""
        if self._replacement is not None:
            self._replacement.abandon()
            return
        if not self._active:
            return
        late = perf_counter() >= self._context.deadline - EARLY_S
        self._give_up()
        self._context.on_end(self._model, DEADLINE_EXCEEDED if late else CLIENT_LEFT)

    def _give_up(self) -> None:
        """End, and take the rows out of the queue."""
        job = self._job
        self._end()
        self._body = b""
        if self._model is not None and job is not None:
            self._model.batcher.forget(job)

    def _expire_at(self, deadline: float) -> None:
        """Answer with 504 at the deadline; raises `DeadlineExceeded` if it has passed."""
        left_s = deadline - perf_counter()
        if left_s <= 0:
            raise DeadlineExceeded
        if self._timer is not None:
            self._timer.cancel()
        self._context = self._context._replace(deadline=deadline)
        self._timer = get_running_loop().call_later(left_s, self._expire)

    def _expire(self) -> None:
        self._give_up()
        self.refuse(exceeded())

    def _on_leaving(self, leaving: "Future[None]") -> None:
        if self._leaving is leaving:
            self.abandon()

    def set_result(self, results: Sequence[Result]) -> None:
        """Encode the results and send the answer."""
        try:
            headers, body = self._answer(results)
        except Exception as error:  # noqa: BLE001  every request is answered
            self.set_exception(error)
            return
        self._end()
        self._context.on_end(self._model, "200")
        self._send(200, headers, body)

    def _answer(self, results: Sequence[Result]) -> tuple[Headers, bytes]:
        """Headers and body of the 200; also hands the answer to what logs it."""
        model, context, rows = self._model, self._context, self._rows
        assert model is not None  # noqa: S101  for the type checker: `start` set it
        start = perf_counter()
        body = model.encoder.encode(results, many=rows.many)
        end = perf_counter()
        model.metrics.encode.observe(end - start)
        if len(body) > LARGE_ANSWER_BYTES:
            self._cover(len(body))
        if context.on_answer is not None:
            latency_s = end - self._start
            context.on_answer(
                AnsweredRequest(
                    model,
                    self._request_id,
                    self._body,
                    rows,
                    results,
                    body,
                    latency_s,
                    context.trace_id,
                )
            )
        headers = json_headers(len(body))
        if context.server_timing:
            headers = [*headers, ("server-timing", self._timing(end - start))]
        return headers, body

    def set_exception(self, error: Exception) -> None:
        """Let the fallback answer, or answer with a problem."""
        if self._fallback is not None:
            leaving, self._leaving = self._leaving, None
            self._end()
            self._replacement = self._fallback(error, self._context.deadline)
            if leaving is not None:
                self._replacement.watch(leaving)
            return
        self.refuse(error if isinstance(error, Problem) else self._as_problem(error))

    def refuse(self, problem: Problem) -> None:
        """Send a problem."""
        self._end()
        self._context.on_end(self._model, problem.code)
        self._send(*self._refusal(problem))

    def _refusal(self, problem: Problem) -> Answer:
        """The response that carries a problem."""
        return refusal(problem)

    def _end(self) -> None:
        """Mark the request as ended. The job is released: it refers to this object, and the
        reference cycle would keep the body in memory until the garbage collector runs."""
        self._active = False
        self._job = None
        if self._timer is not None:
            self._timer.cancel()
        if self._hold is not None:
            self._hold.release()
        if self._leaving is not None:
            leaving, self._leaving = self._leaving, None
            leaving.cancel()

    def _cover(self, size: int) -> None:
        """Reserve memory for the rows, then for the answer, which replaces them; raises `Problem`,
        503."""
        if self._hold is None:
            self._hold = self._context.budget.hold()
        self._hold.cover(size)

    def _timing(self, encode_s: float) -> str:
        """W3C Server-Timing, in milliseconds."""
        assert self._job is not None  # noqa: S101  for the type checker: `decoded` set it
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
        if isinstance(error, DeadlineExceeded):
            return exceeded()
        if isinstance(error, QueueTimeout):
            return Problem(503, "queue_timeout", str(error), retry_after_s=1)
        if isinstance(error.__cause__, NotFiniteError):
            return Problem(
                422, "no_finite_answer", "the model has no finite answer to these values"
            )
        if isinstance(error, RunError):
            extra = {"model": name} | traced(self._context.trace_id)
            logger.error("the model failed on a request", exc_info=error, extra=extra)
            return Problem(500, "model_failed", "the model failed on these rows")
        return unexpected(error, self._context.trace_id)


def traced(trace_id: str | None) -> dict[str, str]:
    """What a line of the log says of a request's trace."""
    return {} if trace_id is None else {"trace_id": trace_id}


def unexpected(error: Exception, trace_id: str | None = None) -> Problem:
    """A 500 without details for the client; the details go to the log, with the request's trace."""
    logger.error("a request failed unexpectedly", exc_info=error, extra=traced(trace_id))
    return Problem(500, "internal_error", "the server failed on this request")


def refusal(problem: Problem) -> Answer:
    """The response that carries a problem document."""
    body = problem.body()
    headers = [
        ("content-type", CONTENT_TYPE),
        ("content-length", str(len(body))),
        *problem.headers.items(),
    ]
    return Answer(problem.status, headers, body)


@lru_cache(4096)
def json_headers(length: int) -> Headers:
    """The headers of a 200 with `length` bytes of JSON; answers of one length share them."""
    return [("content-type", "application/json"), ("content-length", str(length))]


def with_header(send: Send, header: tuple[str, str]) -> Send:
    """Send one more header with the answer."""
    return lambda status, headers, body: send(status, [*headers, header], body)
