"""The hot lane: granian passes every request here, and the prediction routes are answered without
ASGI.

Why: an ASGI request on granian costs three objects and two more thread switches than an RSGI one,
and Litestar's routing, request and response on top of that cost more than decoding, inference and
encoding together (docs/benchmarks.md). The app has these routes, too: the predictor gives this lane
and Litestar's handlers the same answers, and tests/contract compares them byte by byte.

`granian_private.Intake` takes plain predictions before they get here. This lane answers those that
need more checks (a chunked body, another content type, a server that is full), and all predictions
if the intake is not installed. `bridge`, the only place that knows both protocols, translates every
other request into one ASGI call of the app.
"""

import asyncio
from collections.abc import Mapping
from functools import partial

# Public, but not re-exported by name
from granian.rsgi import ProtocolClosed, ProtocolError  # type: ignore[attr-defined]

from halfcore.http import bridge
from halfcore.http.answers import Answers
from halfcore.http.app import App
from halfcore.http.closing import closing
from halfcore.http.coalescing import Coalescer
from halfcore.http.exchange import Exchange, Scope, whole
from halfcore.predict.admission import (
    BINARY_HEADER,
    ENCODING_HEADER,
    Head,
    announced,
    encoding_of,
    ends_itself,
)
from halfcore.predict.body import Collected, client_left
from halfcore.predict.budget import Hold
from halfcore.predict.deadline import HEADER as TIMEOUT_HEADER
from halfcore.predict.handler import Handler
from halfcore.predict.keys import presented
from halfcore.predict.prediction import Send
from halfcore.predict.predictor import Predictor
from halfcore.predict.trace import HEADER as TRACE_HEADER
from halfcore.predict.trace import trace_of

PREFIX, SUFFIX = "/models/", "/predict"


class Front:
    """An RSGI application in front of the Litestar app.

    Args:
        app: answers every request that is not a prediction.
        predictor: answers predictions.
        hot: path → what answers its POSTs.
        coalescer: lets predictions gather while much of the quota is used; if it is None, each
            begins when it arrives.
    """

    def __init__(
        self,
        app: App,
        predictor: Predictor,
        hot: Mapping[str, Handler],
        coalescer: Coalescer | None = None,
    ) -> None:
        self.app = app
        self.coalescer = coalescer
        self.predictor = predictor
        self.answers = Answers(predictor.reader.budget)
        self._hot = hot
        self._stop = asyncio.Event()
        self._lifespan: asyncio.Task[None] | None = None

    async def __rsgi__(self, scope: Scope, exchange: Exchange) -> None:
        """Answer one request."""
        begin = self.begin(scope.path) if scope.method == "POST" else None
        if begin is None:
            await bridge.answer(self.app, scope, exchange, self.answers)
            return
        if self.coalescer is not None:
            self.coalescer.arriving()
            self.coalescer.arrived()
        headers = scope.headers
        get = headers.get
        reader = self.predictor.reader
        request_id = get("x-request-id") if self.predictor.wants_ids else None
        head = Head(
            get("content-type"),
            encoding_of(headers.get_all(ENCODING_HEADER), sent=ENCODING_HEADER in headers),
            get("content-length"),
            request_id,
            get(BINARY_HEADER),
            transfer_encoding=get("transfer-encoding"),
            trace=None if get(TRACE_HEADER) is None else trace_of(headers.get_all(TRACE_HEADER)),
            key=presented(get) if self.predictor.keys is not None else None,
            accept=get("accept"),
            timeout=get(TIMEOUT_HEADER),
        )

        asked = False

        async def read(hold: Hold) -> bytes:
            nonlocal asked
            asked = True
            # A small body of known length is read in one await; any other is counted while it
            # arrives.
            known = head.content_length is not None
            at_once = known and announced(head) <= reader.whole_bytes
            collected = Collected(reader.max_bytes, hold)
            body = exchange() if at_once else _collect(exchange, scope, head, collected)
            try:
                return await reader.in_time(body, in_pieces=not at_once)
            except (ProtocolClosed, ProtocolError):
                raise client_left() from None

        leaves = exchange.client_disconnect
        answer = await self.predictor.respond(begin, head, read, leaves)
        self.send_of(exchange)(*answer)
        if not asked and announced(head) > reader.small_bytes:
            await self.answers.discard(exchange)

    def begin(self, path: str) -> Handler | None:
        """What answers a POST of this path without the app, or None. May be called on any
        thread."""
        if (begin := self._hot.get(path)) is not None:
            return begin
        if (
            path.startswith(PREFIX)
            and path.endswith(SUFFIX)
            and (name := path[len(PREFIX) : -len(SUFFIX)])
            and "/" not in name
        ):
            return self.predictor.usual(name)
        return self.predictor.translated(path)

    def send_of(self, exchange: Exchange) -> Send:
        """What sends a request's answer."""
        send = partial(self.answers.send, exchange)
        return closing(send) if self.app.models.draining else send

    def begin_draining(self) -> None:
        """Report not ready, and close each connection with its answer; may be called on any
        thread."""
        self.app.models.begin_draining()

    def in_progress(self) -> int:
        """Requests that are not answered yet; some are counted twice."""
        return self.app.in_progress + self.predictor.in_progress

    def __rsgi_init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Load the models before the first connection is accepted; an error stops the worker."""
        started = loop.create_future()
        self._lifespan = loop.create_task(self._live(started))
        loop.run_until_complete(
            asyncio.wait((started, self._lifespan), return_when=asyncio.FIRST_COMPLETED)
        )
        if self._lifespan.done():
            self._lifespan.result()

    def __rsgi_del__(self, loop: asyncio.AbstractEventLoop) -> None:
        """End the app's lifespan; called after the last connection was closed."""
        self._stop.set()
        if self._lifespan is not None:
            loop.run_until_complete(self._lifespan)

    async def _live(self, started: "asyncio.Future[None]") -> None:
        # One task for start and end: the app's lifespan holds a task group, which belongs to the
        # task that entered it.
        async with self.app.lifespan():
            started.set_result(None)
            await self._stop.wait()


async def _collect(exchange: Exchange, scope: Scope, head: Head, collected: Collected) -> bytes:
    """Collect a body chunk by chunk.

    Raises:
        Problem: see `Collected`; 400 if it is incomplete.
    """
    ends = 0
    async for chunk in exchange:
        collected.add(chunk)
        ends += not chunk
    # What has trailers may also have been cut off: see `whole`.
    if not whole(ends, scope.headers) or (ends > 1 and not ends_itself(head)):
        raise client_left()
    return collected.body()
