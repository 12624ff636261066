"""A second model for a served one: a *canary* answers a share of the requests, a *shadow* gets a
copy of them.

A challenger never makes a request fail. If a canary fails, the champion answers. A shadow is asked
after the answer is made; its rows have their own queue and thread, and they are dropped if that
queue is full or the event loop runs late.
"""

import asyncio
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from random import random
from time import perf_counter
from typing import Any, Protocol
from zlib import crc32

import numpy as np

from halfcore.bundle import Manifest
from halfcore.challenger_spec import ChallengerSpec
from halfcore.log import logger, reason_of
from halfcore.metrics.counters import Metrics
from halfcore.models.answered import AnsweredRequest
from halfcore.models.loading import Limits
from halfcore.models.served import LoadedModel
from halfcore.pipeline.engine import Result
from halfcore.pipeline.jobs import DeadlineExceeded, Overloaded, QueueTimeout
from halfcore.prediction_log.blocks import Challenged
from halfcore.problem import UNKNOWN_VERSION, Problem

SHADOW_QUEUE_ROWS = 1024
"""Most rows that wait for a shadow; beyond it, requests are not copied."""
SHADOW_QUEUE_S = 0.5
"""Longest time that a row waits for a shadow, seconds."""
HEARTBEAT_S = 0.1
LATE_S = 0.02
"""If the loop wakes this many seconds late, there is no CPU time to spare: nothing is sent to
shadows until it wakes in time again."""
_NOT_ITS_FAULT = (Problem, Overloaded, QueueTimeout, DeadlineExceeded)
"""Why a canary does not answer although its model works: a wrong request, or no time."""


class Log(Protocol):
    """Takes answered requests; see `PredictionLog.add`."""

    def add(self, request: AnsweredRequest, challenged: Challenged | None = None) -> None:
        """Log an answered request."""


class Challenger:
    """One challenger and its state. While it has no model, `reason` says why."""

    def __init__(self, spec: ChallengerSpec) -> None:
        self.spec = spec
        self.model: LoadedModel | None = None
        self.reason: str | None = "not loaded yet"
        self._champion: LoadedModel | None = None
        self._fitted: LoadedModel | None = None
        self._failed = ""
        """Why the model failed, as the log has it; empty: it did not."""

    def put(self, model: LoadedModel) -> None:
        """Use this model from now on, as long as it fits its champion."""
        self.model, self.reason, self._champion, self._failed = model, None, None, ""

    def deliver(self, model: LoadedModel) -> LoadedModel | None:
        """Use this model, which a follower loaded, from now on; return the one that it replaces."""
        replaced = self.model
        self.put(replace(model, role="challenger"))
        return replaced

    def refuse(self, reason: str) -> None:
        """Note why a version cannot be used; one that was loaded before stays in use."""
        self.reason = reason
        logger.error(
            "challenger of %s: refused: %s", self.spec.name, reason, extra={"model": self.spec.name}
        )

    def report_failure(self, version: str, error: BaseException) -> None:
        """Log why the model failed on a request: once per reason in a row, because it may fail on
        each."""
        reason = reason_of(error.__cause__ or error)
        if reason != self._failed:
            logger.error(
                "challenger of %s: version %s failed on a request, which the champion answered: "
                "%s; halfcore_challenger_requests_total counts such requests. Export a version "
                "that answers these rows",
                self.spec.name,
                version,
                reason,
                extra={"model": self.spec.name},
            )
        self._failed = reason

    def against(self, champion: LoadedModel) -> LoadedModel | None:
        """The model, if it fits this champion; checked once per champion."""
        if self.model is None:
            return None
        if champion is not self._champion:
            self._champion = champion
            difference = mismatch(champion, self.model)
            # The champion's decoder applies the feature catalogue: both models must refuse and fill
            # the same values.
            self._fitted = (
                None
                if difference
                else replace(self.model, schema=champion.schema, decoder=champion.decoder)
            )
            if difference is not None:
                self.refuse(difference)
            else:
                self.reason = None
        return self._fitted

    def takes(self, request_id: str | None) -> bool:
        """Whether this request is in the share: by its id, so that a repeated request gets the
        same model; without an id, at random."""
        share = self.spec.share
        if share >= 1.0:
            return True
        if request_id is None:
            return random() < share  # noqa: S311  a sample, not a secret
        return crc32(request_id.encode()) < share * 2**32

    def describe(self) -> dict[str, Any]:
        """For `GET /models/{name}`."""
        manifest = self.model.manifest if self.model else None
        return {
            "mode": self.spec.mode,
            "share": self.spec.share,
            "source": self.spec.source,
            "version": manifest.version if manifest else None,
            "loaded_at": self.model.loaded_at if self.model else None,
            "refused": self.reason,
        }


class Challengers:
    """The challengers of all models of one worker.

    Args:
        specs: at most one per name.
        metrics: counts the outcomes.
        log: gets every answered request, with the shadow's answer if there is one; None: nothing
            is logged.
    """

    def __init__(
        self, specs: Iterable[ChallengerSpec], *, metrics: Metrics, log: Log | None
    ) -> None:
        self.by_name = {spec.name: Challenger(spec) for spec in specs}
        self._metrics = metrics
        self._log = log
        self._late = False
        self.executor = ThreadPoolExecutor(1, thread_name_prefix="shadow")
        """Runs the shadows' batches; its thread starts with the first batch."""
        self._watching: asyncio.Task[None] | None = None

    def __bool__(self) -> bool:
        return bool(self.by_name)

    @property
    def from_registry(self) -> list[str]:
        """The names of those whose source is a registry."""
        return [
            name
            for name, challenger in self.by_name.items()
            if challenger.spec.source.startswith("models:")
        ]

    @property
    def canaries(self) -> bool:
        """Whether any of them answers requests."""
        return any(challenger.spec.mode == "canary" for challenger in self.by_name.values())

    def pick(self, champion: LoadedModel, request_id: str | None) -> LoadedModel | None:
        """The canary, if it answers this request."""
        challenger = self.by_name.get(champion.manifest.name)
        if (
            challenger is None
            or challenger.spec.mode != "canary"
            or not challenger.takes(request_id)
        ):
            return None
        return challenger.against(champion)

    def count(self, name: str, mode: str, outcome: str) -> None:
        """Count one outcome of asking a challenger."""
        key = (name, mode, outcome)
        self._metrics.challenged[key] = self._metrics.challenged.get(key, 0) + 1

    def canary_ended(self, name: str, canary: LoadedModel, failure: Exception | None) -> None:
        """Count a request that a canary answered, or the champion because of the canary's failure;
        not one for the champion's own version."""
        if isinstance(failure, Problem) and failure.code == UNKNOWN_VERSION:
            return
        self.count(name, "canary", "answered" if failure is None else "fell_back")
        if failure is not None and not isinstance(failure, _NOT_ITS_FAULT):
            self.by_name[name].report_failure(canary.manifest.version, failure)

    def on_answer(self, request: AnsweredRequest) -> None:
        """Log an answered request, and first ask the shadow if there is one. Never fails, never
        waits."""
        shadow = self._shadow_for(request)
        if shadow is None:
            self._record(request)
            return
        try:
            if self._late:
                raise Overloaded("the event loop runs late")
            job = shadow.batcher.submit(request.rows.payload, request.rows.size)
        except Overloaded:
            self._record(request, Challenged(shadow.manifest.version, "dropped"))
            return
        start = perf_counter()
        job.future.add_done_callback(
            lambda future: self._record(request, self._outcome(request, shadow, future, start))
        )

    def _shadow_for(self, request: AnsweredRequest) -> LoadedModel | None:
        """The shadow, if it is asked this request."""
        challenger = self.by_name.get(request.model.manifest.name)
        if (
            challenger is None
            or challenger.spec.mode != "shadow"
            or not challenger.takes(request.request_id)
        ):
            return None
        return challenger.against(request.model)

    def _record(self, request: AnsweredRequest, challenged: Challenged | None = None) -> None:
        """Count what the shadow did, and log the request."""
        if challenged is not None:
            self.count(request.model.manifest.name, "shadow", challenged.outcome)
        if self._log is not None:
            self._log.add(request, challenged)

    def _outcome(
        self,
        request: AnsweredRequest,
        shadow: LoadedModel,
        future: "asyncio.Future[Sequence[Result]]",
        start: float,
    ) -> Challenged:
        """What the shadow answered, compared with the champion's answer."""
        version = shadow.manifest.version
        if future.cancelled() or isinstance(future.exception(), QueueTimeout):
            return Challenged(version, "dropped")
        if (error := future.exception()) is not None:
            self.by_name[request.model.manifest.name].report_failure(version, error)
            return Challenged(version, "failed")
        try:
            results = future.result()
            self._compare(request.model, shadow, request.results, results)
            answer = shadow.encoder.encode(results, many=request.rows.many)
        except Exception as error:  # noqa: BLE001  the request is logged all the same
            logger.error(
                "cannot read a challenger's answer; it counts as failed",
                exc_info=error,
                extra={"model": request.model.manifest.name},
            )
            return Challenged(version, "failed")
        return Challenged(version, "answered", answer, perf_counter() - start)

    def _compare(
        self,
        champion: LoadedModel,
        shadow: LoadedModel,
        ours: Sequence[Result],
        theirs: Sequence[Result],
    ) -> None:
        """Count rows by whether both models gave the same label, or the same value within the sum
        of their proven tolerances."""
        classes, others = champion.manifest.classes, shadow.manifest.classes
        if classes:
            equal = sum([classes[a[0]] == others[b[0]] for a, b in zip(ours, theirs, strict=True)])
        else:
            tolerance = _tolerance(champion.manifest) + _tolerance(shadow.manifest)
            equal = sum(
                [_same_value(a[0], b[0], tolerance) for a, b in zip(ours, theirs, strict=True)]
            )
        agreement, name = self._metrics.agreement, champion.manifest.name
        for key, rows in (((name, "equal"), equal), ((name, "different"), len(ours) - equal)):
            agreement[key] = agreement.get(key, 0) + rows

    def start(self) -> None:
        """Start, on the running loop."""
        if any(challenger.spec.mode == "shadow" for challenger in self.by_name.values()):
            self._watching = asyncio.create_task(self.watch())

    async def close(self) -> None:
        """Close, after the last request was answered; every request that a shadow got is logged."""
        if self._watching:
            self._watching.cancel()
        await self.drain()
        self.executor.shutdown()

    async def watch(self) -> None:
        """Measure whether the event loop runs late, until cancelled."""
        clock = asyncio.get_running_loop().time
        while True:
            due = clock() + HEARTBEAT_S
            await asyncio.sleep(HEARTBEAT_S)
            self._late = clock() - due > LATE_S

    async def drain(self) -> None:
        """Wait until every shadow's row is answered or dropped."""
        for challenger in self.by_name.values():
            if challenger.model is not None:
                await challenger.model.batcher.drain()


def _tolerance(manifest: Manifest) -> float:
    """How far an answer may differ from the registered model's, relative to max(1, |value|)."""
    return max(manifest.parity.tolerance, manifest.parity.accepted or 0.0)


def _same_value(ours: Any, theirs: Any, tolerance: float) -> bool:
    """Whether two values, of one target or several, are equal relative to max(1, |ours|)."""
    pairs = zip(np.atleast_1d(ours).tolist(), np.atleast_1d(theirs).tolist(), strict=True)
    return all(abs(a - b) <= tolerance * max(1.0, abs(a)) for a, b in pairs)


def shadow_limits(limits: Limits) -> Limits:
    """A shadow's limits: its batches always run in its thread, and its rows wait only briefly."""
    return replace(
        limits,
        max_queue_size=SHADOW_QUEUE_ROWS,
        solo_after_s=float("inf"),
        queue_timeout_s=SHADOW_QUEUE_S,
        queue_target_s=0.0,
        inline_budget_s=-1.0,
    )


def mismatch(champion: LoadedModel, challenger: LoadedModel) -> str | None:
    """Why a challenger does not fit its champion, or None: both must pack a body into the same
    bytes."""
    ours, theirs = champion.manifest, challenger.manifest
    if ours.task != theirs.task:
        return f"task {theirs.task}, expected the champion's {ours.task}"
    if ours.dtype != theirs.dtype:
        return f"dtype {theirs.dtype}, expected the champion's {ours.dtype}"
    names = [[column.name for column in manifest.inputs] for manifest in (ours, theirs)]
    if names[0] != names[1]:
        return f"columns {', '.join(names[1])}, expected the champion's {', '.join(names[0])}"
    for a, b in zip(ours.inputs, theirs.inputs, strict=True):
        for field in ("kind", "nullable", "categories", "domain", "accepts_unknown", "text"):
            if getattr(a, field) != getattr(b, field):
                return (
                    f"column {a.name}: {field} {getattr(b, field)}, expected the champion's "
                    f"{getattr(a, field)}"
                )
    return None


__all__ = ["Challenger", "Challengers", "mismatch", "shadow_limits"]
