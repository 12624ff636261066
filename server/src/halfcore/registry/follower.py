"""Follows one model: polls the registry, and brings each new bundle into service or says why
not."""

import asyncio
import hashlib
import random
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Literal

from halfcore import bundle
from halfcore.bundle import Bundle, BundleError, Manifest
from halfcore.host import give_back_memory
from halfcore.log import logger, reason_of
from halfcore.metrics.counters import FollowMetrics, ModelMetrics
from halfcore.models.loading import Limits, Prepared, assemble, prepare
from halfcore.models.served import LoadedModel
from halfcore.pipeline.engine import EngineError
from halfcore.registry.client import Client
from halfcore.registry.contract import Contract, SchemaChange
from halfcore.registry.errors import NotOffered, Refusal, RegistryError, SchemaRefusal, Unavailable
from halfcore.registry.fetch import fetch
from halfcore.registry.resolve import Offer, offer, resolve
from halfcore.registry.sandbox import Sandbox
from halfcore.registry.sources import Followed
from halfcore.registry.status import Pending, Refused, Served, Status
from halfcore.registry.store import Store

JITTER = 0.2
"""Share by which a period varies, so that many servers do not ask at once."""
PATIENT_ATTEMPTS = 5
"""Fetches that fail in a row before the time between them grows."""
MOST_DELAY_S = 300.0
_LOCK_RETRY_S = 0.2
_LET_GO_S = 0.5
"""Seconds in which the requests of a replaced model, all answered, leave its objects."""

Outcome = Literal["unchanged", "swapped", "pending", "refused", "failed"]
Deliver = Callable[[LoadedModel], LoadedModel | None]
"""Takes a loaded model into service at once, on the event loop; returns the one that it replaces,
if any."""


@dataclass(frozen=True)
class Resources:
    """What all followers of a process share.

    Attributes:
        client: of the registry.
        store: bundles on disk.
        sandbox: tries bundles.
        limits: how models are batched and bounded.
        inference: the executor of one thread for batches.
        threads: for all that blocks; at least one thread per follower.
        period_s: seconds between polls.
        most_bytes: largest model file.
        download_timeout_s: seconds for one file.
        workspace: MLflow's, that is followed; empty: the default one.
    """

    client: Client
    store: Store
    sandbox: Sandbox
    limits: Limits
    inference: Executor
    threads: ThreadPoolExecutor
    period_s: float
    most_bytes: int
    download_timeout_s: float
    workspace: str

    async def in_thread(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call a function that blocks, off the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self.threads, function, *args)


class Follower:
    """One followed model.

    Args:
        followed: what to follow.
        resources: shared with other followers.
        deliver: takes each loaded model into service.
        contract: holds new versions to what clients rely on; None if no client asks this model
            itself.
        model_metrics: the counters of the loaded models, which outlive each of them.
        metrics: the counters of the following.
    """

    def __init__(
        self,
        followed: Followed,
        resources: Resources,
        *,
        deliver: Deliver,
        contract: Contract | None = None,
        model_metrics: ModelMetrics,
        metrics: FollowMetrics,
    ) -> None:
        self.followed = followed
        self.status = Status(
            name=followed.name,
            role=followed.role,
            uri=followed.uri,
            workspace=resources.workspace or None,
        )
        self._resources = resources
        self._deliver = deliver
        self._contract = contract
        self._model_metrics = model_metrics
        self._metrics = metrics
        self._hint = asyncio.Event()
        self._round = asyncio.Lock()
        self._attempts = 0
        self._not_before = 0.0
        self._wanted: Offer | None = None
        self._kept_out: tuple[Offer, Manifest] | None = None
        """A bundle that lies in the store and was refused for the sake of its columns."""
        self._retiring: set[asyncio.Task[None]] = set()

    # -- the outside -------------------------------------------------------------------------------

    def start_from_disk(self) -> bool:
        """Serve what served last, if its bundle is whole; the event loop stands still meanwhile,
        for nothing is served yet."""
        for path, version in self._resources.store.last_known_good(
            self.followed.name, self.followed.role, self._resources.workspace
        ):
            try:
                source = _read(path)
                sha256 = hashlib.sha256((path / "manifest.json").read_bytes()).hexdigest()
                prepared = prepare(source, max_batch_size=self._resources.limits.max_batch_size)
            except (BundleError, EngineError) as error:
                logger.error(
                    "model %s: the bundle on disk is refused: %s",
                    self.followed.name,
                    reason_of(error),
                )
                continue
            self._take(prepared, version, sha256)
            logger.info("model %s version %s loaded from disk", self.followed.name, version)
            return True
        return False

    async def run(self) -> None:
        """Follow until cancelled."""
        while True:
            delay_s = self._resources.period_s
            try:
                async with self._round:
                    await self.poll()
            except Unavailable as error:
                delay_s = max(delay_s, error.retry_after_s or 0.0)
            except Exception as error:  # noqa: BLE001
                # Nothing that a registry, a disk or a bundle does may end the following; cancelling
                # still does.
                self._fail("internal_error", "the follower failed; the log has the reason")
                logger.error("model %s: the follower failed", self.followed.name, exc_info=error)
            with suppress(TimeoutError):
                # No secret
                async with asyncio.timeout(delay_s * random.uniform(1 - JITTER, 1 + JITTER)):  # noqa: S311
                    await self._hint.wait()
            self._hint.clear()

    def hint(self) -> None:
        """Poll now rather than at the period's end."""
        self._not_before = 0.0
        self._hint.set()

    async def reload(self) -> Outcome:
        """Poll now, and try again what was refused."""
        async with self._round:
            self._not_before = 0.0
            await self._resources.in_thread(self._resources.store.pardon, self.followed.name)
            try:
                return await self.poll()
            except Unavailable:
                return "failed"

    async def close(self) -> None:
        """Stop waiting for replaced models."""
        for task in self._retiring:
            task.cancel()
        await asyncio.gather(*self._retiring, return_exceptions=True)

    # -- one round ---------------------------------------------------------------------------------

    async def poll(self) -> Outcome:
        """Ask the registry once, and bring what it names into service.

        Raises:
            Unavailable: the registry did not answer as it should; the status says so.
        """
        version = ""
        try:
            found = await resolve(self._resources.client, self.followed)
            version = found.version
            self._answered()
            wanted = offer(found)
        except NotOffered as error:
            self._answered()
            return self._wait(version, error)
        except Refusal as error:
            return self._refuse(
                Refused(version=version, code=error.code, reason=str(error), at=datetime.now(UTC))
            )
        except Unavailable as error:
            self._fail(error.code, str(error))
            raise
        if self._serves(wanted):
            self.status.pending = self.status.refused = None
            self._metrics.pending = 0
            return "unchanged"
        return await self._bring(wanted)

    async def _bring(self, wanted: Offer) -> Outcome:
        """Bring an offered bundle into service, or say why not."""
        store, name = self._resources.store, self.followed.name
        if wanted != self._wanted:
            self._wanted, self._attempts, self._not_before = wanted, 0, 0.0
        if known := await self._resources.in_thread(
            store.refusal, name, wanted.version, wanted.manifest_sha256
        ):
            return self._refuse(
                Refused(version=known.version, code=known.code, reason=known.reason, at=known.at)
            )
        if self._kept_out is not None and self._kept_out[0] == wanted:
            try:
                self._hold_to_contract(self._kept_out[1])
            except SchemaRefusal as error:
                return self._refuse(_refused(wanted, error))
        if asyncio.get_running_loop().time() < self._not_before:
            return "pending"
        self._pend(wanted.version, "loading", "downloading it and trying it in the sandbox")
        try:
            await self._swap(wanted)
        except (Refusal, SchemaRefusal) as error:
            return self._refuse(_refused(wanted, error))
        except Unavailable as error:
            return self._put_off(wanted.version, error)
        except OSError as error:
            return self._put_off(
                wanted.version,
                Unavailable("disk", f"the store: {error.strerror or reason_of(error)}"),
            )
        self._metrics.count("swapped")
        return "swapped"

    async def _swap(self, wanted: Offer) -> None:
        """Fetch if need be, load, take into service; under the lock, so that of several workers
        only the first fetches and tries."""
        store, name, role, in_thread = (
            self._resources.store,
            self.followed.name,
            self.followed.role,
            self._resources.in_thread,
        )
        identity = {"version": wanted.version, "manifest_sha256": wanted.manifest_sha256}
        lock = await self._locked()
        try:
            source = await self._on_disk(wanted) or await self._fetched(wanted)
            self._kept_out = (wanted, source.manifest)
            change = self._hold_to_contract(source.manifest)
            self._kept_out = None
            try:
                prepared = await in_thread(
                    partial(prepare, source, max_batch_size=self._resources.limits.max_batch_size)
                )
            except (BundleError, EngineError, MemoryError) as error:
                await in_thread(store.discard, source.path)
                raise Refusal(
                    "load_failed",
                    f"it passed the sandbox, but this process cannot load it: {reason_of(error)}",
                ) from error
            self._take(prepared, wanted.version, wanted.manifest_sha256)
            logger.info("now serving model %s version %s as %s", name, wanted.version, role)
            self._tell_change(wanted.version, change)
            await in_thread(
                partial(
                    store.point,
                    name,
                    role,
                    source.path,
                    uri=self.followed.uri,
                    workspace=self._resources.workspace,
                    **identity,
                )
            )
        except Refusal as error:
            await in_thread(
                partial(store.refuse, name, **identity, code=error.code, reason=str(error))
            )
            raise
        finally:
            lock.close()

    def _hold_to_contract(self, manifest: Manifest) -> SchemaChange | None:
        """What the version changes for clients.

        Raises:
            SchemaRefusal: something that they rely on, and the setting keeps such versions out.
        """
        if self._contract is None:
            return None
        change = self._contract.change(manifest)
        if self._contract.refuse and change and not change.compatible:
            raise SchemaRefusal(
                "schema_changed",
                f"it is not compatible with version {change.from_version}, which serves on: "
                f"{change}. To serve it, start the server with "
                "HALFCORE_FOLLOW_SCHEMA_CHANGES=allow, or follow it under a name of its own "
                f"(NEW_NAME={self.followed.uri}); "
                f"else point {self.followed.uri} at a version with the old columns and answers",
            )
        return change

    async def _locked(self) -> BinaryIO:
        try_lock = partial(
            self._resources.in_thread, self._resources.store.try_lock, self.followed.name
        )
        # Another process's lock wakes nobody here
        while (lock := await try_lock()) is None:  # noqa: ASYNC110
            await asyncio.sleep(_LOCK_RETRY_S)
        return lock  # type: ignore[no-any-return]

    async def _on_disk(self, wanted: Offer) -> Bundle | None:
        """The bundle, if it was accepted before, by whomever; a refusal by another worker is raised
        as it was."""
        store, name, in_thread = (
            self._resources.store,
            self.followed.name,
            self._resources.in_thread,
        )
        identity = (name, wanted.version, wanted.manifest_sha256)
        if known := await in_thread(store.refusal, *identity):
            raise Refusal(known.code, known.reason)
        path = await in_thread(store.find, *identity)
        try:
            return path and await in_thread(_read, path)  # type: ignore[no-any-return]
        except BundleError as error:
            logger.error(
                "model %s: the bundle on disk is damaged; downloading it again: %s",
                name,
                reason_of(error),
            )
            return None

    async def _fetched(self, wanted: Offer) -> Bundle:
        """Fetch, check and try a bundle; it gets a name without a dot last."""
        resources, store = self._resources, self._resources.store
        staging = await resources.in_thread(store.staging, self.followed.name)
        try:
            most_bytes, timeout_s = resources.most_bytes, resources.download_timeout_s
            await fetch(
                resources.client,
                wanted,
                staging,
                most_bytes=most_bytes,
                timeout_s=timeout_s,
                in_thread=resources.in_thread,
            )
            try:
                source = await resources.in_thread(_read, staging)
            except BundleError as error:
                raise _as_registry_error(error) from None
            await resources.sandbox.run(staging, resources.in_thread)
            path = await resources.in_thread(
                store.accept, staging, wanted.version, wanted.manifest_sha256
            )
            return Bundle(path, source.manifest)
        finally:
            await asyncio.shield(resources.in_thread(store.discard, staging))

    # -- the swap itself ---------------------------------------------------------------------------

    def _take(self, prepared: Prepared, version: str, manifest_sha256: str) -> None:
        """One pointer: requests that come from now on see the new model, those that hold the old
        one are answered by it."""
        model = assemble(
            prepared,
            metrics=self._model_metrics,
            limits=self._resources.limits,
            executor=self._resources.inference,
            name=self.followed.name,
            version=version,
        )
        replaced = self._deliver(model)
        self.status.served = Served(
            version=version, manifest_sha256=manifest_sha256, since=model.loaded_at
        )
        self.status.pending = self.status.refused = None
        self._metrics.served_version, self._metrics.pending = version, 0
        if replaced is not None:
            retiring = asyncio.create_task(self._retire(replaced))
            self._retiring.add(retiring)
            retiring.add_done_callback(self._retiring.discard)

    async def _retire(self, model: LoadedModel) -> None:
        """Let a replaced model answer what it has accepted, then give its memory back to the
        kernel."""
        await model.batcher.drain()
        del model
        await asyncio.sleep(_LET_GO_S)
        await self._resources.in_thread(give_back_memory)

    def _tell_change(self, version: str, change: SchemaChange | None) -> None:
        """Say what a version that serves now has changed for clients."""
        self.status.schema_change = change
        if change is None:
            return
        self._metrics.count_schema_change(compatible=change.compatible)
        if change.compatible:
            logger.info(
                "model %s version %s accepts more than version %s: %s",
                self.followed.name,
                version,
                change.from_version,
                change,
            )
        else:
            logger.warning(
                "model %s version %s is not compatible with version %s, and clients may get 422 "
                "or other answers: %s. Point %s back "
                "to undo it; HALFCORE_FOLLOW_SCHEMA_CHANGES=refuse keeps such versions out",
                self.followed.name,
                version,
                change.from_version,
                change,
                self.followed.uri,
            )

    def _serves(self, wanted: Offer) -> bool:
        served = self.status.served
        return served is not None and (served.version, served.manifest_sha256) == (
            wanted.version,
            wanted.manifest_sha256,
        )

    # -- what is told ------------------------------------------------------------------------------

    def _answered(self) -> None:
        self.status.last_success = datetime.now(UTC)
        self.status.error = None
        self._metrics.last_success = self.status.last_success.timestamp()

    def _fail(self, code: str, reason: str) -> None:
        """The registry could not be asked: what serves goes on."""
        if self.status.error != reason:
            logger.warning("model %s: %s", self.followed.name, reason)
        self.status.error = reason
        self._metrics.count_poll_failure(code)

    def _pend(self, version: str, code: str, reason: str) -> None:
        self.status.pending = Pending(
            version=version, code=code, reason=reason, attempts=self._attempts
        )
        self.status.refused = None
        self._metrics.pending = 1

    def _wait(self, version: str, error: RegistryError) -> Outcome:
        """There is nothing to load yet."""
        if self.status.pending is None or (
            self.status.pending.version,
            self.status.pending.reason,
        ) != (version, str(error)):
            logger.info(
                "model %s%s: waiting: %s",
                self.followed.name,
                version and f" version {version}",
                error,
            )
        self._pend(version, error.code, str(error))
        return "pending"

    def _put_off(self, version: str, error: Unavailable) -> Outcome:
        """A fetch failed: again later, less and less often."""
        self._attempts += 1
        delay_s = self._resources.period_s * 2.0 ** max(0, self._attempts - PATIENT_ATTEMPTS)
        delay_s = (
            0.0
            if self._attempts < PATIENT_ATTEMPTS
            else min(delay_s, max(MOST_DELAY_S, self._resources.period_s))
        )
        self._not_before = asyncio.get_running_loop().time() + max(
            delay_s, error.retry_after_s or 0.0
        )
        logger.warning(
            "model %s version %s: download failed, trying again: %s",
            self.followed.name,
            version,
            error,
        )
        self._pend(version, error.code, str(error))
        self._metrics.count(error.code)
        return "failed"

    def _refuse(self, refused: Refused) -> Outcome:
        """It is not served, and said once why."""
        known = self.status.refused
        if known is None or (known.version, known.reason) != (refused.version, refused.reason):
            logger.error(
                "model %s version %s: refused: %s",
                self.followed.name,
                refused.version,
                refused.reason,
            )
            self._metrics.count(refused.code)
            self.status.refused = refused
        self.status.pending = None
        self._metrics.pending = 0
        return "refused"


def _refused(wanted: Offer, error: RegistryError) -> Refused:
    return Refused(version=wanted.version, code=error.code, reason=str(error), at=datetime.now(UTC))


def _read(path: Path) -> Bundle:
    return bundle.read(path, any_name=True)


def _as_registry_error(error: BundleError) -> RegistryError:
    """A wrong hash may be the fault of the network, and is tried again; everything else is the
    bundle's fault."""
    return (
        Unavailable(error.code, error.reason)
        if error.code == "model_sha256"
        else Refusal("bundle", error.reason)
    )
