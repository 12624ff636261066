"""One worker process: each part is built here with what it needs, and closed in reverse order. No
other module knows all parts."""

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import replace
from functools import partial
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from litestar import Litestar

from halfcore import __version__, challenger_spec, healthcheck
from halfcore.bundle_signature import signers_in
from halfcore.catalog import snapshot
from halfcore.catalog.follower import Follower as CatalogFollower
from halfcore.catalog.state import Catalog
from halfcore.challenger.challengers import Challengers, shadow_limits
from halfcore.challenger.loading import load_challengers
from halfcore.host import be_background, settle_memory
from halfcore.http.app import create_app, hot_routes
from halfcore.http.coalescing import Coalescer
from halfcore.http.rsgi import Front
from halfcore.log import configure, logger
from halfcore.metrics.counters import CatalogMetrics, Metrics, PredictionLogMetrics
from halfcore.metrics.exposition import Exposition
from halfcore.models.loading import Limits, load_all
from halfcore.models.served import Models
from halfcore.pipeline.schema import Schema
from halfcore.postgres.database import Database
from halfcore.predict import memory_guard
from halfcore.predict.body import BodyReader
from halfcore.predict.keys import Keys
from halfcore.predict.prediction import OnAnswer
from halfcore.predict.predictor import Predictor
from halfcore.prediction_log.log import PredictionLog
from halfcore.registry import sources
from halfcore.registry.followers import Followers
from halfcore.settings.groups import Settings

if TYPE_CHECKING:
    from halfcore.registry.follower import Follower, Resources

_FIRST_CATALOG_READ_S = 1.0
"""Seconds that a start waits for the first read of the catalogue, so that the first requests find
it; it takes milliseconds."""


class Worker:
    """The parts of one worker process.

    Args:
        settings: all of them.
        shared: an empty directory that the workers share, if there are several.

    Attributes:
        app: the Litestar app; its lifespan starts and closes the parts.
        models: the served models.
        predictor: answers prediction requests.
    """

    def __init__(self, settings: Settings, shared: Path | None = None) -> None:
        configure(level=settings.log_level, form=settings.log_format)
        self._settings, self._shared = settings, shared
        self._metrics = metrics = Metrics()
        self._limits = _limits(settings)
        self._secrets = settings.admin_token, settings.webhook_secret
        # One thread of its own: no name look-up delays inference, and no two runs share a quota.
        self._inference = ThreadPoolExecutor(1, thread_name_prefix="inference")
        self._database = _database(settings)
        self._catalog_hint = asyncio.Event()
        self._catalog = _catalog(settings, metrics, self._catalog_hint)
        self.models = Models(
            default=settings.default_model,
            fallback=settings.fallback_model,
            metrics=metrics,
            refine=self._catalog.refine if self._catalog else None,
        )
        self._log = _prediction_log(settings, metrics)
        self._challengers = Challengers(
            challenger_spec.parse(settings.challengers), metrics=metrics, log=self._log
        )
        self._followers = self._make_followers(shared)
        self._keys = Keys(Path(settings.api_keys)) if settings.api_keys else None
        self._exposition = Exposition(metrics, version=__version__, shared=shared)
        self.predictor = Predictor(
            self.models,
            metrics,
            _reader(settings),
            server_timing=settings.server_timing,
            max_in_flight=settings.max_in_flight,
            queue_timeout_s=settings.queue_timeout_s,
            on_answer=self._on_answer(),
            challengers=self._challengers,
            keys=self._keys,
        )
        self._hot = hot_routes(self.predictor, self.models, bench=settings.bench_routes)
        self.app = create_app(
            self.predictor,
            self._hot,
            self.models,
            catalog=self._catalog,
            challengers=self._challengers,
            followers=self._followers,
            exposition=self._exposition,
            lifespan=self._run,
            secrets=None if settings.admin_port else self._secrets,
            bench=settings.bench_routes,
            home_page=settings.home_page,
        )

    def front(self, *, coalesce_quota: float = 0.0, coalesce_delay_s: float = 0.0) -> Front:
        """The RSGI application: answers predictions, and passes other requests to the app.

        Args:
            coalesce_quota: cores of CPU time that this process may use; 0: requests never gather.
                Otherwise call this on the running loop.
            coalesce_delay_s: longest time that requests gather, seconds.
        """
        coalescer = None
        if coalesce_quota:
            coalescer = Coalescer(
                quota=coalesce_quota,
                aim=self._settings.coalesce_above,
                delay_s=coalesce_delay_s,
                loop=asyncio.get_running_loop(),
                models_clock=self.predictor.metrics.run_seconds,
            )
        return Front(self.app, self.predictor, self._hot, coalescer)

    # -- start and end -----------------------------------------------------------------------------

    @asynccontextmanager
    async def _run(self, _: Litestar) -> AsyncIterator[None]:
        """Start the parts before the first request; close them after the last, in reverse, also if
        a start fails."""
        async with AsyncExitStack() as stack:
            await self._start(stack)
            yield

    async def _start(self, stack: AsyncExitStack) -> None:
        stack.push(_report_end)
        if database := self._database:
            stack.push_async_callback(database.close)
        stack.callback(self._inference.shutdown)
        if self._log:
            self._log.start()
            stack.push_async_callback(self._log.close)
        self._challengers.start()
        stack.push_async_callback(self._challengers.close)
        stack.push_async_callback(self.models.drain)
        stack.push_async_callback(self._followers.close)
        self._load()
        stack.callback(self.models.begin_draining)
        if database and self._catalog:
            follower = self._catalog_follower(database, self._catalog)
            await follower.start(patience_s=_FIRST_CATALOG_READ_S)
            stack.push_async_callback(follower.stop)
        settle_memory()
        self.models.report()
        keys = [self._keys.follow(self.models.knows)] if self._keys else []
        for work in (*keys, memory_guard.guard(self.predictor), self._exposition.share()):
            stack.callback(asyncio.create_task(work).cancel)
        self._followers.start(self.models.settle)
        if self._settings.admin_port:
            await stack.enter_async_context(self._admin_port())
        if self._settings.grpc_port:
            await stack.enter_async_context(self._rpc())

    def _rpc(self) -> AbstractAsyncContextManager[None]:
        """The gRPC server; it ends first, so that its accepted calls find all parts."""
        from halfcore.rpc.server import serving  # late: gRPC takes memory and time to start

        return serving(
            self.predictor,
            self.models,
            address=healthcheck.url(self._settings.host, self._settings.grpc_port),
            tls=(self._settings.tls_certificate, self._settings.tls_key),
            idle_timeout_s=self._settings.idle_timeout_s,
            drain_s=self._settings.drain_timeout_s,
        )

    def _admin_port(self) -> AbstractAsyncContextManager[None]:
        from halfcore.http import admin_port  # late: a server without it does not need it

        settings = self._settings
        app = admin_port.create_app(
            self.models,
            self._followers,
            self._exposition,
            body_timeout_s=settings.body_timeout_s,
            secrets=self._secrets,
        )
        return admin_port.AdminPort(
            app,
            address=(settings.host, settings.admin_port),
            tls=(settings.tls_certificate, settings.tls_key, settings.tls_oldest),
            idle_timeout_s=settings.idle_timeout_s,
        )

    def _load(self) -> None:
        """Load all models, on the event loop: a batcher is made on the loop that it will run on."""
        self._followers.start_from_disk()
        both: Any = {"metrics": self._metrics, "limits": self._limits, "executor": self._inference}
        both["signers"] = signers_in(self._settings.bundle_keys)
        folder, stage = self._settings.bundles, self._settings.model_stage
        load_all(folder, self.models, stage=stage, shared=self._shared, **both)
        load_challengers(self._challengers, folder, self.models, **both)

    def _on_answer(self) -> OnAnswer | None:
        """What gets each answered request: the challengers, which log it too, or the log alone."""
        if self._challengers:
            return self._challengers.on_answer
        return self._log.add if self._log else None

    # -- parts that need some choice ---------------------------------------------------------------

    def _make_followers(self, shared: Path | None) -> Followers:
        """A follower of each model and challenger that the settings name in a registry."""
        wanted = sources.parse(self._settings.follow)
        challengers = self._challengers.from_registry
        if not wanted and not challengers:
            return Followers(shared)
        session = shared.name if shared else uuid4().hex
        resources = _registry_resources(
            self._settings,
            limits=self._limits,
            inference=self._inference,
            session=session,
            followers=len(wanted) + len(challengers),
        )
        followers = [self._follower(followed, resources) for followed in wanted]
        followers += [self._challenger_follower(name, resources) for name in challengers]
        return Followers(shared, followers, resources)

    def _follower(self, followed: sources.Followed, resources: "Resources") -> "Follower":
        from halfcore.registry.contract import Contract
        from halfcore.registry.follower import Follower  # late: it imports an HTTP client

        self.models.expect(followed.name)
        contract = Contract(
            served=partial(self.models.current, followed.name),
            schema_of=partial(self._catalog.schema_of, followed.name)
            if self._catalog
            else Schema.of,
            refuse=self._settings.follow_schema_changes == "refuse",
        )
        return Follower(
            followed,
            resources,
            deliver=self.models.put,
            contract=contract,
            model_metrics=self._metrics.of(followed.name),
            metrics=self._metrics.following_of(followed.name, followed.role),
        )

    def _challenger_follower(self, name: str, resources: "Resources") -> "Follower":
        from halfcore.registry.follower import Follower  # late, as above

        challenger = self._challengers.by_name[name]
        mode = challenger.spec.mode
        if mode == "shadow":
            limits = shadow_limits(resources.limits)
            resources = replace(resources, limits=limits, inference=self._challengers.executor)
        return Follower(
            sources.parse_one(f"{name}={challenger.spec.source}", role="challenger"),
            resources,
            deliver=challenger.deliver,
            model_metrics=self._metrics.of(f"{name} ({mode})"),
            metrics=self._metrics.following_of(name, "challenger"),
        )

    def _catalog_follower(self, database: Database, catalog: Catalog) -> CatalogFollower:
        return CatalogFollower(
            database,
            catalog,
            self.models,
            catalog.metrics,
            self._catalog_hint,
            period_s=self._settings.catalog_refresh_s,
            file=snapshot.file_in(self._settings.state),
        )


def _limits(settings: Settings) -> Limits:
    return Limits(
        max_rows=settings.max_rows,
        max_batch_size=settings.max_batch_size,
        max_queue_size=settings.max_queue_size,
        max_queue_delay_s=settings.max_queue_delay_ms / 1000,
        solo_after_s=settings.solo_after_ms / 1000 if settings.solo_after_ms else inf,
        queue_timeout_s=settings.queue_timeout_s,
        queue_target_s=settings.queue_target_ms / 1000,
        inline_budget_s=settings.inline_budget_ms / 1000,
    )


def _reader(settings: Settings) -> BodyReader:
    return BodyReader(
        max_bytes=settings.max_body_bytes,
        timeout_s=settings.body_timeout_s,
        budget_bytes=settings.max_bytes_in_flight,
    )


def _database(settings: Settings) -> Database | None:
    if not settings.database_url:
        return None
    return Database(
        settings.database_url,
        pooler=settings.database_pooler,
        timeout_s=settings.database_timeout_s,
    )


def _catalog(settings: Settings, metrics: Metrics, hint: asyncio.Event) -> Catalog | None:
    if not settings.database_url:
        return None
    metrics.catalog = CatalogMetrics()
    last = snapshot.load(snapshot.file_in(settings.state))
    return Catalog(metrics.catalog, hint, max_rows=settings.max_rows, last=last)


def _prediction_log(settings: Settings, metrics: Metrics) -> PredictionLog | None:
    if not settings.prediction_log:
        return None
    metrics.prediction_log = PredictionLogMetrics()
    connect = partial(
        Database,
        settings.database_url,
        pooler=settings.database_pooler,
        max_connections=1,
        timeout_s=settings.database_timeout_s,
    )
    return PredictionLog(
        connect,
        spool=settings.prediction_log_spool,
        spool_bytes=settings.prediction_log_spool_bytes,
        memory_bytes=settings.prediction_log_memory_bytes,
        share=settings.prediction_log_share,
        inputs=settings.prediction_log_inputs,
        metrics=metrics.prediction_log,
    )


def _registry_resources(
    settings: Settings,
    *,
    limits: Limits,
    inference: ThreadPoolExecutor,
    session: str,
    followers: int,
) -> "Resources":
    """What so many followers share. `session` identifies this start of the server, in all its
    workers."""
    # Late: an HTTP client takes 8 MB and 0.2 s, which a server that follows nothing does not spend.
    from halfcore.registry.client import Client
    from halfcore.registry.follower import Resources
    from halfcore.registry.sandbox import Sandbox
    from halfcore.registry.store import Store

    client = Client(
        settings.tracking_uri,
        timeout_s=settings.follow_timeout_s,
        token=settings.tracking_token,
        username=settings.tracking_username,
        password=settings.tracking_password,
        ca_file=settings.tracking_ca_file,
        workspace=settings.tracking_workspace,
    )
    sandbox = Sandbox(
        memory_bytes=settings.sandbox_memory_mb << 20,
        timeout_s=settings.sandbox_timeout_s,
        max_batch_size=limits.max_batch_size,
    )
    return Resources(
        client=client,
        store=Store(settings.store, session=session, keep=settings.keep_versions),
        sandbox=sandbox,
        limits=limits,
        inference=inference,
        threads=ThreadPoolExecutor(
            followers + 1, thread_name_prefix="registry", initializer=be_background
        ),
        period_s=settings.follow_period_s,
        most_bytes=settings.max_bundle_mb << 20,
        download_timeout_s=settings.download_timeout_s,
        workspace=settings.tracking_workspace,
        signers=signers_in(settings.bundle_keys),
        refuse_rollback=settings.follow_rollback == "refuse",
    )


def _report_end(error: type[BaseException] | None, *_: object) -> None:
    if error is None:
        logger.info("drained: every accepted request was answered")
