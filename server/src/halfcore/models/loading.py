"""Makes a `LoadedModel` from a bundle: loads it, compares its golden rows, warms it up."""

import re
import struct
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from halfcore import bundle, bundle_search
from halfcore.bundle import Bundle, BundleError, Golden, Manifest
from halfcore.log import logger
from halfcore.metrics.counters import Metrics, ModelMetrics
from halfcore.models.drift import Drift, Run
from halfcore.models.served import LoadedModel, Models
from halfcore.pipeline.batcher import Batcher
from halfcore.pipeline.cost import Cost
from halfcore.pipeline.decode import Decoder
from halfcore.pipeline.encode import Encoder
from halfcore.pipeline.engine import Engine, EngineError, Result
from halfcore.pipeline.schema import Schema

WARM_UP_RUNS = 5
_CREDENTIALS = re.compile(r"://[^/@]*@")


@dataclass(frozen=True, slots=True)
class Prepared:
    """A model that is loaded, checked and warm, and has no queue yet."""

    manifest: Manifest
    schema: Schema
    engine: Engine
    cost: Cost


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of a model's requests and batches; see the settings of the same names."""

    max_rows: int
    max_batch_size: int
    max_queue_size: int
    max_queue_delay_s: float
    solo_after_s: float
    queue_timeout_s: float
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
) -> None:
    """Load the newest bundle of every model in a directory.

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
    """

    def refuse(name: str, reason: str) -> None:
        models.refuse(name, reason)
        metrics.load_failures[name] = metrics.load_failures.get(name, 0) + 1
        logger.error("model %s: refused: %s", name, reason, extra={"model": name})

    found = bundle_search.survey(directory)
    models.directory_problem = found.problem
    for name, reason in found.refused.items():
        if name not in models.served:
            refuse(name, reason)
    default = models.default_among(found.bundles.keys() | found.refused.keys() | models.served)
    for name, paths in sorted(found.bundles.items()):
        if name in models.served:  # a followed model's last-known-good bundle takes precedence
            continue
        refuse_this = partial(refuse, name)
        candidates = _newest_first(name, paths, stage if name == default else "", refuse_this)
        model = _load_first(
            name, candidates, refuse_this, metrics=metrics, limits=limits, executor=executor
        )
        if model is not None:
            models.put(model)


def _load_first(
    name: str,
    paths: Sequence[Path],
    refuse: Callable[[str], None],
    *,
    metrics: Metrics,
    limits: Limits,
    executor: Executor,
) -> LoadedModel | None:
    """Load the first of a model's bundles that is valid; report the others with `refuse`."""
    for path in paths:
        start = time.perf_counter()
        try:
            model = load(
                bundle.read(path), metrics=metrics.of(name), limits=limits, executor=executor
            )
        except (BundleError, EngineError) as error:
            refuse(str(error))
            continue
        seconds = time.perf_counter() - start
        version = model.manifest.version
        logger.info("model %s version %s loaded in %.2f s", name, version, seconds)
        return model
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


def prepare(source: Bundle, *, max_batch_size: int) -> Prepared:
    """Load a bundle, compare its answers with the golden ones, and warm it up: the long part, in
    any thread.

    Raises:
        BundleError: the runtime cannot load the graph, the graph differs from the manifest, or a
            golden row gets another answer.
    """
    manifest = source.manifest
    schema = Schema.of(manifest)
    try:
        engine = Engine(
            source.model_file,
            dtype=manifest.dtype,
            columns=schema.width,
            outputs=manifest.outputs,
        )
    except EngineError as error:
        raise BundleError("graph", source.path, source.model_file.name, str(error)) from error
    golden = _check_golden(engine, schema, source)
    return Prepared(manifest, schema, engine, _warm_up(engine, golden, max_batch_size))


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


def _newest_first(
    name: str, paths: Sequence[Path], stage: str, refuse: Callable[[str], None]
) -> list[Path]:
    """One model's bundles (of that stage) whose manifest can be read, the newest export first;
    calls `refuse` for the others."""
    manifests: dict[Path, Manifest] = {}
    for path in paths:
        try:
            manifests[path] = bundle.read_manifest(path)
        except BundleError as error:
            refuse(str(error))
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


def _without_password(uri: str) -> str:
    """A URI without user and password, which are between :// and @."""
    return _CREDENTIALS.sub("://", uri)


def _check_golden(engine: Engine, schema: Schema, source: Bundle) -> bytes:
    """Run the golden rows one by one and together; return the first of them, packed."""
    manifest = source.manifest
    packed = _packed_golden(schema, source)
    try:
        together = engine.infer(b"".join(packed), len(packed))
        alone = [engine.infer(payload, 1)[0] for payload in packed]
    # The runtime has one exception class per status code, and its messages quote the graph.
    except Exception as error:
        reason = (
            str(error)
            if isinstance(error, EngineError)
            else f"the model failed: {type(error).__name__}"
        )
        raise BundleError("golden", source.path, "golden", reason) from error
    for number, (golden, *answers) in enumerate(zip(manifest.golden, together, alone, strict=True)):
        for answer in answers:
            if problem := _difference(manifest, golden, answer):
                raise BundleError("golden", source.path, f"golden[{number}]", problem)
    return packed[0]


def _packed_golden(schema: Schema, source: Bundle) -> list[bytes]:
    packed = []
    for number, golden in enumerate(source.manifest.golden):
        try:
            packed.append(schema.pack([golden.row[name] for name in schema.names]))
        except (KeyError, OverflowError, TypeError, ValueError, struct.error) as error:
            raise BundleError("golden", source.path, f"golden[{number}].row", repr(error)) from None
    return packed


def _difference(manifest: Manifest, golden: Golden, result: Result) -> str | None:
    """How an answer differs from the golden one by more than the parity tolerance, or None."""
    tolerance = max(manifest.parity.tolerance, manifest.parity.accepted or 0.0)
    if manifest.task == "regression":
        return _value_difference(golden, result, tolerance)
    count = len(manifest.classes)
    if not 0 <= result[0] < count or (len(result) > 1 and len(result[1]) != count):
        return (
            f"label {result[0]} and {len(result[-1]) if len(result) > 1 else 'no'} probabilities, "
            f"expected {count} classes"
        )
    if golden.probabilities is not None and len(result) > 1:
        if problem := _probability_difference(golden.probabilities, result[1], tolerance):
            return problem
        best = sorted(golden.probabilities)[-2:]
        if best[-1] - best[0] < manifest.parity.tie_band:
            return None
    label = manifest.classes[result[0]]
    if label == golden.prediction:
        return None
    return f"prediction {label!r}, expected {golden.prediction!r}"


def _probability_difference(
    expected: Sequence[float], found: Sequence[float], tolerance: float
) -> str | None:
    if (
        len(expected) != len(found)
        or max(abs(a - b) for a, b in zip(found, expected, strict=True)) > tolerance
    ):
        return f"probabilities {found}, expected {expected} within {tolerance:g}"
    return None


def _value_difference(golden: Golden, result: Result, tolerance: float) -> str | None:
    values, expected = _flat(result[0]), _flat(golden.prediction)
    same = len(values) == len(expected) and all(
        abs(a - b) <= tolerance * max(1.0, abs(b)) for a, b in zip(values, expected, strict=True)
    )
    return None if same else f"answer {values}, expected {expected}"


def _flat(value: Any) -> list[float]:
    return [float(item) for item in value] if hasattr(value, "__len__") else [float(value)]


def _warm_up(engine: Engine, row: bytes, max_batch_size: int) -> Cost:
    """Run the smallest and the largest batch a few times: first runs are slow, and the batcher
    needs the cost of a batch."""
    cost = Cost()
    for rows in (1, max_batch_size):
        payload = row * rows
        for run in range(WARM_UP_RUNS):
            # This thread's CPU time: while the event loop is busy, wall time would mostly be
            # waiting.
            start = time.thread_time()
            engine.infer(payload, rows)
            if run:
                cost.learn(rows, time.thread_time() - start)
    return cost
