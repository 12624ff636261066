"""What happens between a worker's start and its end: models are loaded before the first request, and every accepted row is answered
before the last."""

import asyncio
import gc
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from math import inf
from typing import TYPE_CHECKING

from litestar import Litestar

from halfcore.beside import Beside
from halfcore.catalog import snapshot
from halfcore.catalog.follow import Follower
from halfcore.catalog.state import Catalog
from halfcore.database import Database
from halfcore.exposition import Exposition
from halfcore.host import be_background, give_back_memory
from halfcore.log import logger
from halfcore.metrics import Metrics
from halfcore.models import Limits, LoadedModel, Models, load_all
from halfcore.registry import sources
from halfcore.registry.following import Following
from halfcore.schema import Schema
from halfcore.settings import Settings

_CATALOG_PATIENCE_S = 1.0
"""Seconds that a start waits for the first read, so that the first requests find the catalogue; an answer takes milliseconds."""
GARBAGE_THRESHOLD = 20_000
"""Objects made, less those freed, between two looks for garbage."""

if TYPE_CHECKING:
    from halfcore.registry.follow import Means

Lifespan = Callable[[Litestar], AbstractAsyncContextManager[None]]


def lifespan(
    settings: Settings,
    models: Models,
    metrics: Metrics,
    exposition: Exposition,
    catalog: Catalog | None,
    beside: Beside,
    following: Following,
    *,
    session: str,
) -> Lifespan:
    """The app's lifespan.

    Args:
        settings: all of them.
        models: takes what is loaded.
        metrics: counts.
        exposition: shares the counts with the other workers.
        catalog: the feature catalogue, if a database is configured.
        beside: the prediction log and the challengers.
        following: of the registry.
        session: tells this start of the server from others; the same in all its workers.
    """
    limits = Limits(
        max_rows=settings.max_rows,
        max_batch_size=settings.max_batch_size,
        max_queue_size=settings.max_queue_size,
        max_queue_delay_s=settings.max_queue_delay_ms / 1000,
        solo_after_s=settings.solo_after_ms / 1000 if settings.solo_after_ms else inf,
        queue_timeout_s=settings.queue_timeout_s,
        inline_budget_s=settings.inline_budget_ms / 1000,
    )

    @asynccontextmanager
    async def run(_: Litestar) -> AsyncIterator[None]:
        # One thread, not the loop's default pool: inference must not wait behind a name look-up, nor two runs share a quota.
        executor = ThreadPoolExecutor(1, thread_name_prefix="inference")
        # On the loop, for nothing is served yet; a batcher is born on the loop that it will run on.
        if settings.follow or beside.followed:
            wanted = sources.parse(settings.follow)
            followers = len(wanted) + len(beside.followed)
            means = _means(settings, limits=limits, inference=executor, session=session, followers=followers)
            following.use(means)
            refuse = settings.follow_schema_changes == "refuse"
            _follow(wanted, models, metrics, following, means, catalog, refuse=refuse)
            beside.follow(following, means, metrics)
        load_all(settings.bundles, models, metrics=metrics, limits=limits, executor=executor, stage=settings.model_stage)
        beside.load(settings.bundles, models, metrics=metrics, limits=limits, executor=executor)
        database = None
        if settings.database_url:
            database = Database(settings.database_url, pooler=settings.database_pooler, timeout_s=settings.database_timeout_s)
        follower = None
        if database and catalog and metrics.catalog:
            file = snapshot.file_in(settings.state)
            follower = Follower(database, catalog, models, metrics.catalog, period_s=settings.catalog_refresh_s, file=file)
            await follower.start(patience_s=_CATALOG_PATIENCE_S)
        # What start-up made lives as long as the process: the collector need not look at it again.
        gc.collect()
        gc.freeze()
        # Requests in progress are many short-lived objects without cycles: at the default of 700 each batch would be looked through.
        gc.set_threshold(GARBAGE_THRESHOLD)
        # The runtime frees some five bytes per byte of a tree ensemble's file once it is loaded, and glibc keeps them.
        give_back_memory()
        _report(models)
        sharing = asyncio.create_task(exposition.share())
        beside.start()
        following.start()
        yield
        sharing.cancel()
        if follower:
            await follower.stop()
        models.draining = True
        await following.stop()
        await models.drain()
        await beside.close()
        executor.shutdown()
        if database:
            await database.close()
        logger.info("drained: every accepted request was answered")

    return run


def _report(models: Models) -> None:
    """Log whether requests may come, which model `/predict` has, and what stands in the way."""
    if models.ready and models.default_name:
        logger.info("POST /predict serves %s: %s", models.default_name, models.why_default)
    for reason in models.reasons:
        if models.ready:
            logger.warning("%s", reason)
        else:
            logger.error("not ready: %s", reason)
    if models.ready:
        logger.info("ready")


def _means(settings: Settings, *, limits: Limits, inference: Executor, session: str, followers: int) -> "Means":
    """What so many followers share."""
    # Here, for an HTTP client takes 8 MB and 0.2 s, which a server that follows nothing does not spend.
    from halfcore.registry.client import Client
    from halfcore.registry.follow import Means
    from halfcore.registry.store import Store
    from halfcore.registry.trial import Trial

    trial = Trial(memory_bytes=settings.canary_memory_mb << 20, timeout_s=settings.canary_timeout_s, max_batch_size=limits.max_batch_size)
    return Means(
        client=Client(
            settings.tracking_uri,
            timeout_s=settings.follow_timeout_s,
            token=settings.tracking_token,
            username=settings.tracking_username,
            password=settings.tracking_password,
            ca_file=settings.tracking_ca_file,
            workspace=settings.tracking_workspace,
        ),
        store=Store(settings.store, session=session, keep=settings.keep_versions),
        trial=trial,
        limits=limits,
        inference=inference,
        threads=ThreadPoolExecutor(followers + 1, thread_name_prefix="registry", initializer=be_background),
        period_s=settings.follow_period_s,
        most_bytes=settings.max_bundle_mb << 20,
        download_timeout_s=settings.download_timeout_s,
        workspace=settings.tracking_workspace,
    )


def _follow(
    wanted: list[sources.Followed],
    models: Models,
    metrics: Metrics,
    following: Following,
    means: "Means",
    catalog: Catalog | None,
    *,
    refuse: bool,
) -> None:
    """Make a follower of each model that the settings name, and serve what it served last.

    `refuse` keeps out versions that are not compatible with the served one.
    """
    from halfcore.registry.contract import Contract
    from halfcore.registry.follow import Follower  # late, as above

    def deliver(model: LoadedModel) -> LoadedModel | None:
        """Serve a model, and have the metrics say since when."""
        name = model.manifest.name
        replaced = models.put(model)
        if replaced is not None:
            metrics.loaded.pop((name, replaced.manifest.version), None)
        metrics.loaded[name, model.manifest.version] = model.loaded_at.timestamp()
        return replaced

    for one in wanted:
        models.expect(one.name)
        counters = metrics.following_of(one.name, one.role)
        contract = Contract(
            served=partial(models.current, one.name),
            schema_of=partial(catalog.schema_of, one.name) if catalog else Schema.of,
            refuse=refuse,
        )
        follower = Follower(
            one, means, deliver=deliver, contract=contract, model_metrics=metrics.of(one.name), metrics=counters
        )  # fmt: skip
        follower.start_from_disk()
        following.add(follower)
