"""The Litestar app: every route, complete under any ASGI server."""

from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

from litestar import Litestar, Request, Response
from litestar.datastructures import State
from litestar.exceptions import HTTPException

from halfcore import __version__, challenger_spec
from halfcore.beside import Beside
from halfcore.catalog import snapshot
from halfcore.catalog.state import Catalog
from halfcore.challenger import Challengers
from halfcore.database import Database
from halfcore.errors import CONTENT_TYPE, Problem
from halfcore.exposition import Exposition
from halfcore.lifespan import lifespan
from halfcore.log import configure, logger
from halfcore.metrics import CatalogMetrics, Metrics, PredictionLogMetrics
from halfcore.models import Models
from halfcore.prediction_log.log import PredictionLog
from halfcore.registry.following import Following
from halfcore.routes import admin, bench, docs, head, health, predict
from halfcore.routes import metrics as metrics_routes
from halfcore.routes import models as model_routes
from halfcore.routes.body import BodyReader
from halfcore.settings import Settings


class App(Litestar):
    """The app; answers HEAD wherever it answers GET."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request, or run the lifespan; see ASGI."""
        method = scope.get("method")
        if method == "HEAD":
            scope = scope | {"method": "GET"}
            send = head.without_body(send)
        elif method == "OPTIONS":
            send = head.naming_head(send)
        await super().__call__(scope, receive, send)


def create_app(settings: Settings, shared: Path | None = None) -> Litestar:
    """Build the app of one worker process; bundles are loaded in its lifespan.

    Args:
        settings: all of them.
        shared: an empty directory that the workers share, if there are several.
    """
    configure(level=settings.log_level, form=settings.log_format)
    models = Models(default=settings.default_model, fallback=settings.fallback_model)
    metrics = Metrics()
    catalog = None
    if settings.database_url:
        metrics.catalog = CatalogMetrics()
        catalog = Catalog(models, metrics.catalog, max_rows=settings.max_rows, last=snapshot.load(snapshot.file_in(settings.state)))
        models.refine = catalog.refine
    exposition = Exposition(metrics, version=__version__, shared=shared)
    following = Following(shared)
    reader = BodyReader(max_bytes=settings.max_body_bytes, timeout_s=settings.body_timeout_s)
    beside = _beside(settings, metrics)
    predictor = predict.Predictor(
        models,
        metrics,
        reader,
        server_timing=settings.server_timing,
        max_in_flight=settings.max_in_flight,
        queue_timeout_s=settings.queue_timeout_s,
        witness=beside.witness,
        challengers=beside.challengers,
    )
    hot: dict[str, predict.Begin] = {"/predict": partial(predictor.begin, None)}
    if settings.bench_routes:
        hot |= bench.begins(models)
    return App(
        route_handlers=[
            *predict.routes(predictor, hot),
            *model_routes.routes(models, catalog, beside.challengers, following),
            *health.routes(models, following),
            *admin.routes(models, following, admin_token=settings.admin_token, webhook_secret=settings.webhook_secret),
            *metrics_routes.routes(exposition),
            *docs.routes(models),
            *([bench.null_by_get] if settings.bench_routes else []),
        ],
        lifespan=[
            lifespan(settings, models, metrics, exposition, catalog, beside, following, session=shared.name if shared else uuid4().hex)
        ],
        openapi_config=docs.openapi_config(models),
        exception_handlers={Problem: _problem, HTTPException: _http_exception, Exception: _unexpected},
        state=State({"predictor": predictor, "hot": hot, "models": models}),
        # Set here because LITESTAR_DEBUG in the environment would otherwise show stack traces to clients.
        debug=False,
        logging_config=None,
    )


def _beside(settings: Settings, metrics: Metrics) -> Beside:
    log = None
    if settings.prediction_log:
        metrics.prediction_log = PredictionLogMetrics()
        log = PredictionLog(
            lambda: Database(
                settings.database_url,
                pooler=settings.database_pooler,
                max_connections=1,
                timeout_s=settings.database_timeout_s,
            ),
            spool=settings.prediction_log_spool,
            spool_bytes=settings.prediction_log_spool_bytes,
            memory_bytes=settings.prediction_log_memory_bytes,
            share=settings.prediction_log_share,
            inputs=settings.prediction_log_inputs,
            metrics=metrics.prediction_log,
        )
    return Beside(log, Challengers(challenger_spec.parse(settings.challengers), metrics=metrics, log=log))


def _problem(_: Request[Any, Any, Any], problem: Problem) -> Response[bytes]:
    return Response(problem.body(), status_code=problem.status, media_type=CONTENT_TYPE, headers=problem.headers)


def _http_exception(request: Request[Any, Any, Any], error: HTTPException) -> Response[bytes]:
    details = {
        404: ("not_found", "no such route; GET /docs lists them"),
        405: ("method_not_allowed", f"{request.method} is not answered here"),
    }
    code, detail = details.get(error.status_code, ("bad_request", "the request cannot be answered"))
    headers = {name.lower(): value for name, value in (error.headers or {}).items()}
    if "allow" in headers:
        headers["allow"] = head.allowed(headers["allow"])
    return _problem(request, Problem(error.status_code, code, detail, headers=headers))


def _unexpected(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    logger.error("a request failed unexpectedly", exc_info=error, extra={"path": request.url.path})
    return _problem(request, Problem(500, "internal_error", "the server failed on this request"))
