"""Makes a `LoadedModel` from a bundle that `preparing` loaded."""

import re
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import msgspec

from halfcore import bundle, bundle_search
from halfcore.bundle import Bundle, BundleError, Manifest
from halfcore.bundle_signature import Signers
from halfcore.log import logger
from halfcore.metrics.counters import Metrics, ModelMetrics
from halfcore.models import first_loaded
from halfcore.models.drift import Drift, Run
from halfcore.models.preparing import Prepared, prepare
from halfcore.models.served import LoadedModel, Models
from halfcore.pipeline.batcher import Batcher
from halfcore.pipeline.decode import Decoder
from halfcore.pipeline.encode import Encoder
from halfcore.pipeline.engine import EngineError
from halfcore.readable import printable

_CREDENTIALS = re.compile(r"://[^/@]*@")


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of a model's requests and batches; see the settings of the same names."""

    max_rows: int
    max_batch_size: int
    max_queue_size: int
    max_queue_delay_s: float
    solo_after_s: float
    queue_timeout_s: float
    queue_target_s: float
    inline_budget_s: float


class _Recorder:
    """Counts in a model's metrics what its batcher does."""

    def __init__(self, metrics: ModelMetrics) -> None:
        self._metrics = metrics
        self.queued = metrics.queue.observe

    def ran(self, rows: int, seconds: float, bisections: int) -> None:
        self._metrics.infer.observe(seconds)
        self._metrics.batch_rows.observe(rows)
        if bisections:
            self._metrics.bisections += bisections
            logger.error(
                "a batch failed; ran it again in halves to find the failing request",
                extra={"rows": rows, "bisections": bisections},
            )


def load_all(
    directory: Path,
    models: Models,
    *,
    metrics: Metrics,
    limits: Limits,
    executor: Executor,
    stage: str,
    signers: Signers | None = None,
    shared: Path | None = None,
) -> None:
    """Load the newest bundle of every model in a directory, or the one that the other workers of
    this server loaded.

    A bundle that is refused affects only its model, and not even that if an older bundle of the
    model is valid: then that one is served, and the refusal is in the log, in `/health` and in the
    metrics. A problem of the directory is reported there, too.

    Args:
        directory: see docs/bundle-format.md.
        models: receives the loaded models, and the reasons why others were refused.
        metrics: counts the refusals.
        limits: see `Limits`.
        executor: of one thread, for batches that are too expensive for the event loop.
        stage: if not empty, the default model is served only from a bundle that was exported as
            `models:/NAME/STAGE`.
        signers: one of them must have signed each bundle; None: nobody needs to.
        shared: the directory that the workers share; None if there is only one.
    """

    def refuse(name: str, reason: str) -> None:
        name, reason = printable(name), printable(reason)
        models.refuse(name, reason)
        metrics.load_failures[name] = metrics.load_failures.get(name, 0) + 1
        logger.error("model %s: refused: %s", name, reason, extra={"model": name})

    found = bundle_search.survey(directory)
    models.directory_problem = printable(found.problem)
    for name, reason in found.refused.items():
        if name not in models.served:
            refuse(name, reason)
    before, loaded = first_loaded.read(shared), dict[str, str]()
    default = models.default_among(found.bundles.keys() | found.refused.keys() | models.served)
    for name, paths in sorted(found.bundles.items()):
        if name in models.served:  # a followed model's last-known-good bundle takes precedence
            continue
        refuse_this = partial(refuse, name)
        read = partial(bundle.read, signers=signers)
        manifests = _manifests(paths, signers, refuse_this)
        candidates = _newest_first(name, manifests, stage if name == default else "", refuse_this)
        if before is not None:
            candidates = _as_before(name, candidates, before, refuse_this)
        found_one = _load_first(
            name, candidates, read, refuse_this, metrics=metrics, limits=limits, executor=executor
        )
        if found_one is not None:
            loaded[name], model = found_one
            models.put(model)
    first_loaded.write(shared, loaded)


def _load_first(
    name: str,
    paths: Sequence[Path],
    read: Callable[[Path], Bundle],
    refuse: Callable[[str], None],
    *,
    metrics: Metrics,
    limits: Limits,
    executor: Executor,
) -> tuple[str, LoadedModel] | None:
    """Load the first of a model's bundles that is valid, and name its folder; report the others
    with `refuse`."""
    for path in paths:
        start = time.perf_counter()
        try:
            model = load(read(path), metrics=metrics.of(name), limits=limits, executor=executor)
        except (BundleError, EngineError) as error:
            refuse(str(error))
            continue
        seconds = time.perf_counter() - start
        version = model.manifest.version
        logger.info("model %s version %s loaded in %.2f s", name, version, seconds)
        return path.name, model
    return None


def load(
    source: Bundle,
    *,
    metrics: ModelMetrics,
    limits: Limits,
    executor: Executor,
    role: str = "champion",
) -> LoadedModel:
    """Load a bundle on the event loop, which is blocked meanwhile; raises as `prepare`."""
    prepared = prepare(source, max_batch_size=limits.max_batch_size)
    return assemble(prepared, metrics=metrics, limits=limits, executor=executor, role=role)


def assemble(
    prepared: Prepared,
    *,
    metrics: ModelMetrics,
    limits: Limits,
    executor: Executor,
    name: str = "",
    version: str = "",
    role: str = "champion",
) -> LoadedModel:
    """Make a prepared model ready to answer: the short part, on the event loop that serves it.

    Args:
        prepared: must not be used elsewhere.
        metrics: the counters to write; their gauge of queued rows now shows this model's.
        limits: see `Limits`.
        executor: of one thread, for batches that are too expensive for the event loop.
        name: the name that clients use, if it is not the manifest's.
        version: the version that clients see, if it is not the manifest's.
        role: see `LoadedModel`.
    """
    own = prepared.manifest
    manifest = msgspec.structs.replace(own, name=name or own.name, version=version or own.version)
    run: Run = prepared.engine.infer
    if role == "champion":
        metrics.drift = None
        if own.distribution is not None:
            metrics.drift = drift = Drift(manifest, prepared.schema, own.distribution)
            run = drift.watching(run)
    batcher = Batcher(
        run,
        executor=executor,
        observer=_Recorder(metrics),
        max_batch_size=limits.max_batch_size,
        max_queue_size=limits.max_queue_size,
        max_queue_delay_s=limits.max_queue_delay_s,
        solo_after_s=limits.solo_after_s,
        queue_timeout_s=limits.queue_timeout_s,
        queue_target_s=limits.queue_target_s,
        inline_budget_s=limits.inline_budget_s,
        cost=prepared.cost,
    )
    metrics.queued_rows = lambda: batcher.queued_rows
    decoder = Decoder(prepared.schema, max_rows=limits.max_rows)
    return LoadedModel(
        manifest=manifest,
        bundle_name=own.name,
        bundle_version=own.version,
        schema=prepared.schema,
        decoder=decoder,
        batcher=batcher,
        encoder=Encoder(manifest),
        metrics=metrics,
        loaded_at=datetime.now(UTC),
        role=role,
    )


def _manifests(
    paths: Sequence[Path], signers: Signers | None, refuse: Callable[[str], None]
) -> dict[Path, Manifest]:
    """The manifests of the bundles that have a good one; calls `refuse` for the others."""
    manifests: dict[Path, Manifest] = {}
    for path in paths:
        try:
            manifests[path] = bundle.read_manifest(path, signers=signers)
        except BundleError as error:
            refuse(str(error))
    return manifests


def _newest_first(
    name: str, manifests: dict[Path, Manifest], stage: str, refuse: Callable[[str], None]
) -> list[Path]:
    """One model's bundles (of that stage), the newest export first; calls `refuse` if none is of
    that stage."""
    # Under any registered name: a bundle can be exported under another name, which is then its
    # directory's.
    exported = re.compile(rf"models:/[^/]+/{re.escape(stage)}" if stage else ".*")
    wanted = {path: m for path, m in manifests.items() if exported.fullmatch(m.source.uri)}
    if manifests and not wanted:
        found = ", ".join(sorted({_without_password(m.source.uri) for m in manifests.values()}))
        refuse(
            f"model_stage {stage!r}: no bundle was exported as models:/{name}/{stage}, found "
            f"{found}"
        )
    return sorted(wanted, key=lambda path: wanted[path].created_at.removesuffix("Z"), reverse=True)


def _as_before(
    name: str, newest_first: list[Path], before: dict[str, str], refuse: Callable[[str], None]
) -> list[Path]:
    """One model's bundles, with the one that the other workers loaded first; calls `refuse` if they
    serve none."""
    if name not in before:
        if newest_first:
            refuse(
                "no other worker serves it: its bundle was refused, or not there, when the server "
                "started; restart the server to load it"
            )
        return []
    usual = [path for path in newest_first if path.name == before[name]]
    if not usual and newest_first:
        logger.warning(
            "model %s: the bundle that the other workers loaded, %s, is not there any more, so "
            "this worker may answer with another version; restart the server",
            name,
            before[name],
        )
    elif usual != newest_first[:1]:
        logger.warning(
            "model %s: %s is loaded, as by the other workers, and not %s, which is newer; restart "
            "the server to load that",
            name,
            before[name],
            newest_first[0].name,
        )
    return usual + [path for path in newest_first if path not in usual]


def _without_password(uri: str) -> str:
    """A URI without user and password, which are between :// and @."""
    return _CREDENTIALS.sub("://", uri)
