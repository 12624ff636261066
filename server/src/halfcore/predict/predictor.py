"""Answers prediction requests without knowing HTTP: the RSGI front and the Litestar handlers pass
requests in and send the answers."""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from functools import lru_cache, partial
from math import inf

from halfcore.challenger.challengers import Challengers
from halfcore.metrics.counters import PREDICT, Metrics
from halfcore.models.served import LoadedModel, Models
from halfcore.predict.admission import BINARY_HEADER, NO_HEAD, Head, announced, check_head
from halfcore.predict.body import OVERLOADED, BodyReader, client_left, overloaded, short_of_memory
from halfcore.predict.budget import Hold
from halfcore.predict.coding import Expander, Place
from halfcore.predict.deadline import deadline_of
from halfcore.predict.handler import Handler, InProgress
from halfcore.predict.keys import Keys
from halfcore.predict.long_bodies import LongBodies
from halfcore.predict.prediction import (
    Answer,
    Context,
    Fallback,
    Headers,
    OnAnswer,
    Prediction,
    Send,
    refusal,
    unexpected,
    with_header,
)
from halfcore.predict.protocols.paths import route_of
from halfcore.predict.protocols.prediction import Spoken, TranslatedPrediction
from halfcore.predict.protocols.protocol import Wire
from halfcore.predict.request_id import HEADER, RequestIds
from halfcore.predict.trace import HEADER as TRACE_HEADER
from halfcore.predict.trace import Trace
from halfcore.problem import Problem

Read = Callable[[Hold], Awaitable[bytes]]
"""Reads a request's body and covers it; raises `Problem`: too large, too slow or incomplete."""
Leaves = Callable[[], Awaitable[None]]
"""Returns when a request's client left."""


_PATHS = 256
"""Most paths whose protocol is remembered, each of at most `_PATH_CHARACTERS`: a client can make
up as many as it likes."""
_PATH_CHARACTERS = 256
_LENGTHS = 16
"""Most lengths of a body's JSON whose handler is remembered for a path: a client's are mostly
equal."""
Make = Callable[..., Prediction]
"""Makes a prediction; called as `Prediction` is."""


class Usual(partial[Prediction]):
    """Answers a path of Halfcore's own protocol; a `Handler`. A partial, because its call costs
    less than a method's."""

    @property
    def model(self) -> str | None:
        """The model that the path names; None: the default model."""
        name: str | None = self.args[0]
        return name


class Predictor:
    """Answers prediction requests from the served models.

    Args:
        models: the served models.
        metrics: counts the requests by outcome.
        reader: reads bodies and limits their size and time.
        server_timing: report each stage's milliseconds in the answer's `Server-Timing` header.
        max_in_flight: most requests in progress, including those whose body is still arriving;
            0: no limit.
        queue_timeout_s: longest time that a long body may wait to be expanded, and then to be
            decoded, seconds.
        on_answer: called for every right answer; it neither fails nor waits.
        challengers: the canaries among them answer a share of the requests.
        keys: the API keys, one of which every request needs; None: none is needed.
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
        on_answer: OnAnswer | None = None,
        challengers: Challengers | None = None,
        keys: Keys | None = None,
    ) -> None:
        self.keys = keys
        if keys is not None:
            metrics.key_requests = keys.counts
        self._challengers = challengers if challengers and challengers.canaries else None
        self._models = models
        self.metrics = self._metrics = metrics
        long = LongBodies(timeout_s=queue_timeout_s)
        self._context = Context(self._count_end, on_answer, server_timing, long, reader.budget)
        self._max_in_flight = max_in_flight or sys.maxsize
        self._in_flight = 0
        self.memory_is_short = False
        """Whether requests are refused because the memory limit is near; see `memory_guard`."""
        self.wants_ids = on_answer is not None or bool(challengers)
        """Whether the requests' ids are used: by the prediction log or a challenger."""
        self._ids = RequestIds() if self.wants_ids else None
        self.reader = reader
        metrics.bytes_in_flight = reader.budget.figures
        self._expander = Expander(max_bytes=reader.max_bytes, timeout_s=queue_timeout_s)
        self.crowded: set[str] = set()
        """Models whose queue stood when it last refused a request."""
        self._known_paths = lru_cache(_PATHS)(self._translated)

    def limit_in_flight(self, most: int) -> None:
        """Lower `max_in_flight`."""
        self._max_in_flight = min(self._max_in_flight, most)

    def full(self) -> bool:
        """Whether no request is accepted: `max_in_flight` are in progress, or memory is short."""
        return self.in_progress >= self._max_in_flight or self.memory_is_short

    def refuses(self, handler: Handler) -> bool:
        """Whether the queue of the handler's model takes no more; asked on granian's thread."""
        name = getattr(handler, "model", None) or self._models.default_name
        model = self._models.current(name) if name in self.crowded else None
        if model is not None and model.batcher.refuses_small():
            return True
        self.crowded.discard(name)
        return False

    @property
    def in_progress(self) -> int:
        """Requests in progress, including those whose body is still arriving."""
        return self._in_flight + len(self.reader.reading)

    def allows(self, get: Callable[[str], str | None], handler: Handler) -> bool:
        """Whether a head has the API key that the handler's model needs, or none is needed; called
        on granian's thread."""
        if self.keys is None:
            return True
        model = getattr(handler, "model", None) or self._models.default_name
        return self.keys.allows(get, model)

    def begin(
        self,
        name: str | None,
        body: bytes,
        request_id: str | None,
        send: Send,
        make: Make = Prediction,
        trace: Trace | None = None,
        deadline: float = inf,
    ) -> Prediction:
        """Start to answer a request; see `Handler`.

        Args:
            name: the model that the path names; None: the default model.
            make: makes the prediction, for a request in another protocol.
            trace: that the request belongs to; the answer has its header.
            deadline: until when the client waits; see `deadline`.
        """
        self._in_flight += 1
        # The canary's share is drawn by the client's own id: one made here would change each time.
        given = request_id
        if self._ids is not None:
            request_id = self._ids.of(given)
            send = with_header(send, (HEADER, request_id))
        context = self._context
        if trace is not None:
            send = with_header(send, (TRACE_HEADER, trace.header))
            context = context._replace(trace_id=trace.id)
        if deadline != inf:
            context = context._replace(deadline=deadline)
        prediction = make(body, request_id, send, context)
        try:
            model = self._models.get_default() if name is None else self._models.get(name)
        except Problem as problem:
            prediction.refuse(problem)
            return prediction
        canaries = self._challengers
        if canaries is not None and (canary := canaries.pick(model, given)) is not None:
            ask = partial(make, body, request_id, send)
            return self._ask_canary(canaries, canary, model, ask, context)
        prediction.start(model)
        return prediction

    def usual(self, name: str | None) -> Usual:
        """What answers a POST of a model's own path; None: of the default model's."""
        return Usual(self.begin, name)

    def translated(self, path: str) -> "Translated | None":
        """What answers a POST of this path in another server's protocol; None if no protocol has
        the path. May be called on any thread."""
        return (self._known_paths if len(path) <= _PATH_CHARACTERS else self._translated)(path)

    def _translated(self, path: str) -> "Translated | None":
        route = route_of(path)
        return None if route is None else Translated(self, route.wire, route.model)

    async def respond(
        self, handler: Handler, head: Head, read: Read, leaves: Leaves | None = None
    ) -> Answer:
        """Answer a POST of a hot route. Cancelling is safe: the rows leave the queue.

        Args:
            handler: answers that route.
            head: the headers that decide whether the body is read.
            read: reads the body; raises `Problem` if it is too large or too slow.
            leaves: returns when the client left. Called only for requests that wait long.
        """
        with self.reader.budget.hold() as hold:
            return await self._respond(handler, head, read, leaves, hold)

    async def _respond(
        self, handler: Handler, head: Head, read: Read, leaves: Leaves | None, hold: Hold
    ) -> Answer:
        wire = None
        if isinstance(handler, Translated):
            handler, wire = handler.with_head(head), handler.wire
        place = None
        deadline = head.deadline
        try:
            self._admit(handler, head, wire)
            deadline = min(deadline, deadline_of(head.timeout))
            hold.cover(announced(head))
            body = await read(hold)
            hold.cover(len(body))
            if head.content_encoding is not None:
                place = Place(self._expander, head.content_encoding, hold)
                body = await self._expanded(body, place)
        except Problem as problem:
            return self.refuse(problem, head.request_id, wire, head.trace)
        except Exception as error:  # noqa: BLE001  the client gets a 500, the log the details
            failure = unexpected(error, None if head.trace is None else head.trace.id)
            return self.refuse(failure, head.request_id, wire, head.trace)
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

        def send(status: int, headers: Headers, body: bytes) -> None:
            if not future.done():
                future.set_result(Answer(status, headers, body))

        in_progress = handler(body, head.request_id, send, trace=head.trace, deadline=deadline)
        leaving: asyncio.Future[None] | None = None
        if leaves is not None and in_progress.waits_long():
            leaving = asyncio.ensure_future(leaves())
            leaving.add_done_callback(lambda _: send(*refusal(client_left())))
        try:
            return await future
        finally:
            if leaving is not None:
                leaving.cancel()
            in_progress.abandon()
            if place is not None:
                place.release()

    async def _expanded(self, body: bytes, place: Place) -> bytes:
        """The expanded body; it is in progress meanwhile. Raises `Problem`."""
        self._in_flight += 1
        try:
            return await place.expand(body)
        finally:
            self._in_flight -= 1

    def _admit(self, handler: Handler, head: Head, wire: Wire | None) -> None:
        """Refuse a request before its body is read; raises `Problem`. The load is checked first: a
        request that is refused for it does not count against its key's rate. A handler whose model
        is in the body checks the key itself."""
        self.check_load()
        if not getattr(handler, "model_in_body", False):
            self.check_key(head, getattr(handler, "model", None))
        check = check_head if wire is None else wire.check_head
        check(head, max_body_bytes=self.reader.max_bytes)

    def check_key(self, head: Head, model: str | None) -> None:
        """Refuse a request without an API key for this model, if one is needed; None: the default
        model. Raises `Problem`, 401 or 403."""
        if self.keys is not None:
            self.keys.check(head.key, model or self._models.default_name)

    def check_load(self) -> None:
        """Refuse any request by the server's load alone; raises `Problem`, 503."""
        if self.memory_is_short:
            raise short_of_memory()
        if self.full():
            raise overloaded(f"{self._max_in_flight} requests are in progress, the limit")

    def refuse(
        self,
        problem: Problem,
        request_id: str | None,
        wire: Wire | None = None,
        trace: Trace | None = None,
    ) -> Answer:
        """Count a request that is refused before it starts, and return its answer."""
        self._metrics.count(PREDICT, "", problem.code)
        answer = refusal(problem) if wire is None else wire.refusal(problem)
        if self._ids is not None:
            answer.headers.append((HEADER, self._ids.of(request_id)))
        if trace is not None:
            answer.headers.append((TRACE_HEADER, trace.header))
        return answer

    def _ask_canary(
        self,
        challengers: Challengers,
        canary: LoadedModel,
        champion: LoadedModel,
        ask: Make,
        context: Context,
    ) -> Prediction:
        """Let the canary answer; if it cannot, the champion answers. What neither can answer is
        not counted for the canary: a wrong request says nothing of it."""
        name = champion.manifest.name

        def start(
            model: LoadedModel, failure: Exception | None, deadline: float, *fallback: Fallback
        ) -> Prediction:
            def on_end(_: LoadedModel | None, outcome: str) -> None:
                if outcome == "200":
                    challengers.canary_ended(name, canary, failure)
                self._count_end(champion, outcome)

            prediction = ask(context._replace(on_end=on_end, deadline=deadline), *fallback)
            prediction.start(model)
            return prediction

        return start(canary, None, context.deadline, partial(start, champion))

    def _count_end(self, model: LoadedModel | None, outcome: str) -> None:
        self._in_flight -= 1
        if outcome == "200" and model is not None:
            model.metrics.answered += 1  # by far the most frequent outcome: no dict look-up
        elif outcome:
            if outcome == OVERLOADED and model is not None:
                self.crowded.add(model.manifest.name)
            self._metrics.count(PREDICT, model.manifest.name if model else "", outcome)


class Translated:
    """Answers a path of another server's protocol; a `Handler`.

    Args:
        predictor: answers.
        wire: the protocol.
        name: the model; None: the default model.
        head: the request's headers, as far as the protocol needs them.
    """

    def __init__(
        self, predictor: Predictor, wire: Wire, name: str | None, head: Head = NO_HEAD
    ) -> None:
        self._predictor = predictor
        self.model = name
        self._make = partial(TranslatedPrediction, Spoken(wire, head))
        # One that is for a single request remembers nothing.
        by_length = self._with_length
        self._by_length = lru_cache(_LENGTHS)(by_length) if head is NO_HEAD else by_length
        self.wire = wire

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
        """See `Handler`."""
        return self._predictor.begin(
            self.model, body, request_id, send, self._make, trace, deadline
        )

    def if_plain(
        self, get: Callable[[str], str | None], *, max_body_bytes: int
    ) -> "Translated | None":
        """The same for one request; None if its head needs more checks. See `Wire.is_plain`."""
        if not self.wire.is_plain(get, max_body_bytes=max_body_bytes):
            return None
        length = get(BINARY_HEADER)
        return self if length is None else self._by_length(length)

    def _with_length(self, json_length: str) -> "Translated":
        return self.with_head(Head(None, None, None, None, json_length))

    def with_head(self, head: Head) -> "Translated":
        """The same for one request with these headers."""
        return Translated(self._predictor, self.wire, self.model, head)
