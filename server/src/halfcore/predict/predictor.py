"""Answers prediction requests; knows no protocol: the RSGI front and the Litestar handlers hand it
requests and send its answers."""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Protocol

from halfcore.challenger.challengers import Challengers
from halfcore.metrics.counters import PREDICT, Metrics
from halfcore.models.served import LoadedModel, Models
from halfcore.predict.admission import Head, check_head
from halfcore.predict.body import BodyReader
from halfcore.predict.long_bodies import LongBodies
from halfcore.predict.prediction import (
    Answer,
    Headers,
    Prediction,
    Send,
    Terms,
    Witness,
    refusal,
    unexpected,
)
from halfcore.predict.request_id import HEADER, RequestIds
from halfcore.problem import Problem

Read = Callable[[], Awaitable[bytes]]
"""Reads a request's body; raises `Problem` if it is too large, too slow or broken off."""


class Leave(Protocol):
    """A request in progress."""

    def leave(self) -> None:
        """Nobody waits for its answer any more."""


class Begin(Protocol):
    """Begins to answer a POST whose head was accepted and whose body is here; `send` is called
    once, now or later on the event loop."""

    def __call__(self, body: bytes, request_id: str | None, send: Send, /) -> Leave:
        """Begin; never raises."""


class Predictor:
    """Answers prediction requests from the served models.

    Args:
        models: the served models.
        metrics: counts the requests by outcome.
        reader: reads bodies within a size and a time.
        server_timing: tell each stage's milliseconds in the answer's `Server-Timing` header.
        max_in_flight: requests in progress, those whose body is awaited included; 0: any number.
        queue_timeout_s: a long body that has waited longer to be decoded is refused.
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
        queue_timeout_s: float,
        witness: Witness | None = None,
        challengers: Challengers | None = None,
    ) -> None:
        self._challengers = challengers if challengers and challengers.canaries else None
        self._models = models
        self._metrics = metrics
        self._terms = Terms(
            self._over, witness, server_timing, LongBodies(timeout_s=queue_timeout_s)
        )
        self._max_in_flight = max_in_flight or sys.maxsize
        self._in_flight = 0
        self.wants_ids = witness is not None or bool(challengers)
        """Whether anybody reads the requests' ids."""
        self._ids = RequestIds() if self.wants_ids else None
        self.reader = reader

    def full(self) -> bool:
        """Whether as many requests are in progress as may be."""
        return self._in_flight + len(self.reader.reading) >= self._max_in_flight

    def begin(
        self, name: str | None, body: bytes, request_id: str | None, send: Send
    ) -> Prediction:
        """Begin to answer; see `Begin`.

        Args:
            name: the model of the path; None is the default model.
        """
        self._in_flight += 1
        # A canary's share is drawn by it: an id that is made here says nothing of the client
        given = request_id
        if self._ids is not None:
            request_id = self._ids.of(given)
            send = _with_id(send, request_id)
        prediction = Prediction(body, request_id, send, self._terms)
        try:
            model = self._models.get_default() if name is None else self._models.get(name)
        except Problem as problem:
            prediction.refuse(problem)
            return prediction
        if (
            self._challengers is not None
            and (canary := self._challengers.pick(model, given)) is not None
        ):
            return self._ask_canary(
                self._challengers, canary, model, prediction, (body, request_id, send)
            )
        prediction.ask(model)
        return prediction

    async def respond(self, begin: Begin, head: Head, read: Read) -> Answer:
        """The answer to a POST of a hot route, whatever happens. Cancelling is safe: the rows leave
        the queue.

        Args:
            begin: what answers that route.
            head: what of the request's head decides whether its body is read.
            read: reads the body; raises `Problem` if it is too large or too slow.
        """
        try:
            self.check(head)
            body = await read()
        except Problem as problem:
            return self.refuse(problem, head.request_id)
        except Exception as error:  # noqa: BLE001  the client gets a bare 500, the log the rest
            return self.refuse(unexpected(error), head.request_id)
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

        def send(status: int, headers: Headers, body: bytes) -> None:
            if not future.done():
                future.set_result(Answer(status, headers, body))

        begun = begin(body, head.request_id, send)
        try:
            return await future
        except asyncio.CancelledError:
            begun.leave()
            raise

    def check(self, head: Head) -> None:
        """Refuse by the server's state and the request's head alone what need not be read; raises
        `Problem`."""
        if self.full():
            raise Problem(
                503,
                "overloaded",
                f"{self._max_in_flight} requests are in progress, the limit; try again",
                retry_after_s=1,
            )
        check_head(head, max_body_bytes=self.reader.max_bytes)

    def refuse(self, problem: Problem, request_id: str | None) -> Answer:
        """The answer to a request that was not begun, counted; it came with this id, if any."""
        self._metrics.count(PREDICT, "", problem.code)
        answer = refusal(problem)
        if self._ids is not None:
            answer.headers.append((HEADER, self._ids.of(request_id)))
        return answer

    def _ask_canary(
        self,
        challengers: Challengers,
        canary: LoadedModel,
        champion: LoadedModel,
        instead: Prediction,
        request: tuple[bytes, str | None, Send],
    ) -> Prediction:
        """Let the canary answer; where it cannot, the champion does, by `instead`."""
        name = champion.manifest.name

        def over(_: LoadedModel | None, outcome: str) -> None:
            if outcome:
                challengers.count(name, "canary", "answered")
            self._over(champion, outcome)

        def fall_back() -> Prediction:
            challengers.count(name, "canary", "fell_back")
            instead.ask(champion)
            return instead

        prediction = Prediction(*request, self._terms._replace(over=over), fall_back)
        prediction.ask(canary)
        return prediction

    def _over(self, model: LoadedModel | None, outcome: str) -> None:
        self._in_flight -= 1
        if outcome == "200" and model is not None:
            model.metrics.answered += (
                1  # of all outcomes by far the most frequent, and so without a look-up
            )
        elif outcome:
            self._metrics.count(PREDICT, model.manifest.name if model else "", outcome)


def _with_id(send: Send, request_id: str) -> Send:
    """Tell the request's id with the answer."""
    return lambda status, headers, body: send(status, [*headers, (HEADER, request_id)], body)
