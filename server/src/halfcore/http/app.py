"""The Litestar app: it has every route and works under any ASGI server."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

from litestar import Litestar, Request, Response
from litestar.exceptions import HTTPException
from litestar.plugins import PluginProtocol
from litestar.plugins.core import MsgspecDIPlugin

from halfcore.catalog.state import Catalog
from halfcore.challenger.challengers import Challengers
from halfcore.http.closing import closing_asgi
from halfcore.http.deadline import receive_in_time
from halfcore.http.routes import admin, docs, head, health, home, predict, protocols
from halfcore.http.routes import metrics as metrics_routes
from halfcore.http.routes import models as model_routes
from halfcore.http.routes.bench import begins as bench_begins
from halfcore.http.routes.bench import null_by_get
from halfcore.log import logger
from halfcore.metrics.exposition import Exposition
from halfcore.models.served import Models
from halfcore.predict.body import BodyReader
from halfcore.predict.handler import Handler
from halfcore.predict.prediction import refusal
from halfcore.predict.predictor import Predictor
from halfcore.predict.protocols.paths import INVOCATIONS, form_of
from halfcore.problem import Problem
from halfcore.registry.followers import Followers

ADMIN_ROUTES = "this port has health, metrics and the administrative routes alone"


class App(Litestar):
    """The app. It answers HEAD wherever it answers GET, and closes connections while it drains.

    Attributes:
        models: the served models; set by `create_app`, as is the next one.
        reader: its time limit holds for the bodies of all routes.
        in_progress: requests that are not answered yet.
    """

    models: Models
    reader: BodyReader
    in_progress = 0

    @staticmethod
    def _get_default_plugins(plugins: list[PluginProtocol]) -> list[PluginProtocol]:
        """Litestar's plugins without those for Pydantic and attrs, which no route uses: where these
        are installed, importing them is a fifth of a start's CPU time and 9 MB. Where a Litestar
        does not call this private name, it imports them, and all works as well."""
        return [*plugins, MsgspecDIPlugin()]

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request, or run the lifespan; see ASGI."""
        if scope["type"] != "http":
            await super().__call__(scope, receive, send)
            return
        self.in_progress += 1
        try:
            await self._answer(scope, receive, send)
        finally:
            self.in_progress -= 1

    async def _answer(self, scope: Any, receive: Any, send: Any) -> None:
        method = scope["method"]
        if self.models.draining:
            send = closing_asgi(send)
        if method == "OPTIONS" and scope["path"] == "*":
            await head.answer_for_server(send)
            return
        if method not in ("GET", "HEAD", "OPTIONS"):
            limit_s, too_slow = self.reader.timeout_s, self.reader.too_slow
            receive = receive_in_time(receive, timeout_s=limit_s, too_slow=too_slow)
        if method == "HEAD":
            scope = scope | {"method": "GET"}
            send = head.without_body(send)
        elif method == "OPTIONS":
            send = head.naming_head(send)
        await super().__call__(scope, receive, send)


def hot_routes(predictor: Predictor, models: Models, *, bench: bool) -> dict[str, Handler]:
    """Path → what answers its POSTs without the app; `bench` adds the routes that the load lab
    compares with."""
    hot: dict[str, Handler] = {"/predict": predictor.usual(None)}
    if (invocations := predictor.translated(INVOCATIONS)) is not None:
        hot[INVOCATIONS] = invocations
    return hot | bench_begins(models) if bench else hot


def create_app(
    predictor: Predictor,
    hot: dict[str, Handler],
    models: Models,
    *,
    catalog: Catalog | None,
    challengers: Challengers,
    followers: Followers,
    exposition: Exposition,
    lifespan: Callable[[Litestar], AbstractAsyncContextManager[None]],
    secrets: tuple[str, str] | None,
    bench: bool,
    home_page: bool,
) -> App:
    """The app with all routes; `worker` builds, starts and closes its parts.

    Args:
        predictor: answers predictions.
        hot: see `hot_routes`.
        models: the served models.
        catalog: the feature catalogue, if a database is configured.
        challengers: all of them.
        followers: of the registry's models.
        exposition: makes the text of /metrics.
        lifespan: starts and closes the parts.
        secrets: keys of the administration routes and of MLflow's webhook; a route whose key is
            empty is off; None: another port has these routes and /metrics.
        bench: whether to add GET /bench/null.
        home_page: whether `/` is the server's own page; otherwise it leads to /docs.
    """
    app = App(
        route_handlers=[
            *predict.routes(predictor, hot),
            *model_routes.routes(models, catalog, challengers, followers),
            *health.routes(models, followers),
            *protocols.routes(models, predictor.reader),
            *admin.routes(models, followers, predictor.reader, secrets=secrets or ("", "")),
            *([] if secrets is None else metrics_routes.routes(exposition.scrape)),
            *docs.routes(models, keyed=predictor.keys is not None),
            *(home.routes(exposition) if home_page else [docs.root]),
            *([null_by_get] if bench else []),
        ],
        lifespan=[lifespan],
        openapi_config=docs.openapi_config(models, keyed=predictor.keys is not None),
        exception_handlers=ERRORS,
        # Set here because LITESTAR_DEBUG in the environment would otherwise show stack traces to
        # clients.
        debug=False,
        logging_config=None,
    )
    app.models, app.reader = models, predictor.reader
    return app


def _problem(request: Request[Any, Any, Any], problem: Problem) -> Response[bytes]:
    """A problem in the form that the path's clients know."""
    # Not request.url: building it fails on some Host headers, "x:99999" for example
    wire = form_of(request.scope["path"])
    status, headers, body = refusal(problem) if wire is None else wire.refusal(problem)
    more = dict(headers)
    kind = more.pop("content-type")
    del more["content-length"]  # the app's own
    return Response(body, status_code=status, media_type=kind, headers=more)


def _http_exception(request: Request[Any, Any, Any], error: HTTPException) -> Response[bytes]:
    # The app of the admin port has no /docs
    listed = "GET /docs lists them" if request.app.openapi_config else ADMIN_ROUTES
    details = {
        404: ("not_found", f"no such route; {listed}"),
        405: ("method_not_allowed", f"{request.method} is not allowed on this route"),
    }
    code, detail = details.get(error.status_code, ("bad_request", "the request cannot be answered"))
    headers = {name.lower(): value for name, value in (error.headers or {}).items()}
    if "allow" in headers:
        headers["allow"] = head.allowed(headers["allow"])
    return _problem(request, Problem(error.status_code, code, detail, headers=headers))


def _unexpected(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    extra = {"path": request.scope["path"]}
    logger.error("a request failed unexpectedly", exc_info=error, extra=extra)
    return _problem(request, Problem(500, "internal_error", "the server failed on this request"))


ERRORS: Any = {Problem: _problem, HTTPException: _http_exception, Exception: _unexpected}
"""Exception → what answers it, of every app."""
