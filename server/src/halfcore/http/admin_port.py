"""A port of its own for operators: health, metrics and the administrative routes. A thread with an
event loop of its own serves it, so it answers while the other port refuses requests, and while that
port's event loop stands still.

What it reports is read from this thread: the counters are numbers, which no lock protects. What it
changes is changed on the other loop.
"""

import asyncio
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any, TypeVar

from granian.constants import HTTPModes, Interfaces, SSLProtocols
from granian.http import HTTP1Settings
from granian.server.embed import Server
from litestar import Response, get

from halfcore.http.app import ERRORS, App
from halfcore.http.routes import admin, health
from halfcore.http.routes import metrics as metrics_routes
from halfcore.log import logger
from halfcore.metrics.exposition import Exposition
from halfcore.models.served import Models
from halfcore.predict.body import BodyReader
from halfcore.registry.followers import Followers

STALLED_S = 1.0
"""Seconds without a turn of the event loop after which it counts as stalled."""
_BACKLOG = 128
_TRIES = 3
T = TypeVar("T")


class Pulse:
    """Finds out whether another thread's event loop turns; costs it nothing while nobody asks.

    Args:
        loop: that loop.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._asked: tuple[float, asyncio.Event] | None = None

    async def stalled_s(self) -> float:
        """Seconds for which the loop has not turned, at least; 0 if it turns."""
        if self._asked is None:
            turned = asyncio.Event()
            self._asked = monotonic(), turned
            answer = partial(asyncio.get_running_loop().call_soon_threadsafe, self._on_turn)
            self._loop.call_soon_threadsafe(answer)
        since, turned = self._asked
        try:
            await asyncio.wait_for(turned.wait(), STALLED_S)
        except TimeoutError:
            return monotonic() - since
        return 0.0

    def _on_turn(self) -> None:
        if self._asked is not None:
            self._asked[1].set()
            self._asked = None


class Remote(Followers):
    """Followers of another thread's event loop.

    Args:
        followers: used on `loop`.
        loop: that loop.
    """

    def __init__(self, followers: Followers, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(followers=list(followers))
        self._there = followers
        self._loop = loop

    def hint(self) -> None:
        """See `Followers`."""
        self._loop.call_soon_threadsafe(self._there.hint)

    async def reload(self, name: str) -> dict[str, Any]:
        """See `Followers`."""
        found = asyncio.run_coroutine_threadsafe(self._there.reload(name), self._loop)
        return await asyncio.wrap_future(found)


def create_app(
    models: Models,
    followers: Followers,
    exposition: Exposition,
    *,
    body_timeout_s: float,
    secrets: tuple[str, str],
) -> App:
    """The app of the admin port. Called on the event loop of the other port.

    Args:
        models: the served models.
        followers: of the registry's models.
        exposition: makes the text of /metrics.
        body_timeout_s: seconds that a body may take.
        secrets: see `app.create_app`.
    """
    loop = asyncio.get_running_loop()
    pulse = Pulse(loop)
    reader = BodyReader(max_bytes=admin.MOST_WEBHOOK_BYTES, timeout_s=body_timeout_s)

    @get("/health/live", summary="Whether the event loop of predictions turns; 503 if not")
    async def live() -> Response[dict[str, Any]]:
        stalled_s = await pulse.stalled_s()
        if stalled_s:
            stalled = {"status": "stalled", "stalled_s": round(stalled_s, 1)}
            return Response(stalled, status_code=503)
        return Response({"status": "alive"})

    app = App(
        route_handlers=[
            live,
            *health.states(models, lambda: _read(lambda: health.report(models, followers))),
            *metrics_routes.routes(lambda: exposition.scrape(_read(exposition.snapshot))),
            *admin.routes(models, Remote(followers, loop), reader, secrets=secrets),
        ],
        exception_handlers=ERRORS,
        openapi_config=None,
        debug=False,
        logging_config=None,
    )
    app.models, app.reader = models, reader
    return app


def _read(read: Callable[[], T]) -> T:
    """Read what the other thread may change meanwhile: a dict that grows is read again."""
    for _ in range(_TRIES):
        try:
            return read()
        except RuntimeError:
            continue
    return read()


def _call(loop: asyncio.AbstractEventLoop, *what: Any) -> None:
    """Call a function on a loop, from another thread."""
    loop.call_soon_threadsafe(*what)


class AdminPort:
    """Serves an app in a thread.

    Args:
        app: what it answers with.
        address: host and port to listen on; workers share them.
        tls: the files of the certificate chain and of its key, and the oldest version; empty files:
            no TLS.
        idle_timeout_s: seconds until an idle connection is closed.
    """

    def __init__(
        self,
        app: App,
        *,
        address: tuple[str, int],
        tls: tuple[str, str, str],
        idle_timeout_s: int,
    ) -> None:
        self._app = app
        self._options: dict[str, Any] = dict(zip(("address", "port"), address, strict=True))
        self._options["http1_settings"] = HTTP1Settings(header_read_timeout=idle_timeout_s * 1000)
        certificate, key, oldest = tls
        if certificate:
            self._options |= {
                "ssl_cert": Path(certificate),
                "ssl_key": Path(key),
                "ssl_protocol_min": SSLProtocols(f"tls{oldest}"),
            }
        self._thread = threading.Thread(target=self._run, name="admin", daemon=True)
        self._stop: Callable[[], object] = lambda: None
        self._report: Callable[[BaseException | None], object] = lambda _: None

    async def __aenter__(self) -> None:
        """Listen; raises what keeps it from listening."""
        loop = asyncio.get_running_loop()
        self._started: asyncio.Future[None] = loop.create_future()
        self._report = partial(_call, loop, self._on_start)
        self._thread.start()
        await self._started

    async def __aexit__(self, *_: object) -> None:
        """Answer what was accepted, and end the thread."""
        self._stop()
        await asyncio.to_thread(self._thread.join)

    def _on_start(self, error: BaseException | None) -> None:
        if self._started.done():
            logger.error("the admin port ended unexpectedly; restart the server", exc_info=error)
        elif error is None:
            self._started.set_result(None)
        else:
            self._started.set_exception(error)

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:  # noqa: BLE001  a thread has nobody else to report it to
            self._report(error)

    async def _serve(self) -> None:
        server = Server(
            self._app,
            interface=Interfaces.ASGINL,
            http=HTTPModes.http1,
            websockets=False,
            backlog=_BACKLOG,
            log_enabled=False,
            **self._options,
        )
        self._stop = partial(asyncio.get_running_loop().call_soon_threadsafe, server.stop)
        server.on_startup(partial(self._report, None))
        await server.serve()
