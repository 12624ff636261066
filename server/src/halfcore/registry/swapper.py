"""Takes an offered bundle into service: downloads it, tries it in the sandbox, loads it, and
replaces the served model by it."""

import asyncio
import hashlib
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import BinaryIO

from halfcore import bundle
from halfcore.bundle import Bundle, BundleError, Manifest
from halfcore.host import give_back_memory
from halfcore.log import logger, reason_of
from halfcore.metrics.counters import ModelMetrics
from halfcore.models.loading import assemble
from halfcore.models.preparing import Prepared, prepare
from halfcore.models.served import LoadedModel
from halfcore.pipeline.engine import EngineError
from halfcore.registry.contract import Contract, SchemaChange
from halfcore.registry.errors import Refusal, SchemaRefusal, Unavailable
from halfcore.registry.fetch import fetch
from halfcore.registry.reporter import Reporter
from halfcore.registry.resolve import Offer
from halfcore.registry.resources import Resources
from halfcore.registry.sources import Followed

_LOCK_RETRY_S = 0.2
_RELEASE_S = 0.5
"""Seconds until the requests of a replaced model, all answered, have released its objects."""

Deliver = Callable[[LoadedModel], LoadedModel | None]
"""Takes a loaded model into service at once, on the event loop; returns the one that it replaces,
if any."""


class Swapper:
    """Swaps the bundles of one followed model.

    Args:
        followed: what is followed.
        resources: shared with other followers.
        deliver: takes each loaded model into service.
        contract: compares new versions with what clients rely on; None if clients do not call this
            model directly.
        model_metrics: the counters of the loaded models, kept from one version to the next.
        reporter: reports what is served.
    """

    def __init__(
        self,
        followed: Followed,
        resources: Resources,
        *,
        deliver: Deliver,
        contract: Contract | None,
        model_metrics: ModelMetrics,
        reporter: Reporter,
    ) -> None:
        self._followed = followed
        self._resources = resources
        self._deliver = deliver
        self._contract = contract
        self._model_metrics = model_metrics
        self._reporter = reporter
        self._served_made = ""
        """When the served bundle was made, as in its manifest; empty: nothing is served."""
        self._incompatible: tuple[Offer, Manifest] | None = None
        """A bundle that is in the store and was refused because of its columns."""
        self._unrecorded: tuple[Offer, Path] | None = None
        """What is served although the store could not record it."""
        self._retiring: set[asyncio.Task[None]] = set()

    def load_from_disk(self) -> bool:
        """Serve what was served last, if its bundle is whole; return whether anything is.

        Blocks the event loop: nothing is served yet.
        """
        name = self._followed.name
        for path, version in self._resources.store.last_known_good(
            name, self._followed.role, self._resources.workspace
        ):
            try:
                source = self._read(path)
                sha256 = hashlib.sha256((path / "manifest.json").read_bytes()).hexdigest()
                prepared = self._prepare(source)
            except (BundleError, EngineError) as error:
                logger.error("model %s: the bundle on disk is refused: %s", name, reason_of(error))
                continue
            self._put_into_service(prepared, version, sha256)
            logger.info("model %s version %s loaded from disk", name, version)
            return True
        return False

    async def swap(self, wanted: Offer) -> None:
        """Serve an offered bundle; under the store's lock, so that of several workers only the
        first downloads and tries it.

        Raises:
            Refusal: the bundle must not be served; the store remembers it.
            SchemaRefusal: it is not compatible with what is served.
            Unavailable: it could not be downloaded.
            OSError: the store's disk failed before the bundle was served.
        """
        in_thread, store = self._resources.in_thread, self._resources.store
        identity = (self._followed.name, wanted.version, wanted.manifest_sha256)
        lock = await self._lock()
        try:
            source = await self._on_disk(wanted) or await self._download(wanted)
            self._check_age(source.manifest)
            self._incompatible = (wanted, source.manifest)
            change = self._check_contract(source.manifest)
            self._incompatible = None
            prepared = await self._load(source)
            self._put_into_service(prepared, wanted.version, wanted.manifest_sha256)
            self._reporter.now_serving(wanted.version, change)
            await self._record(wanted, source.path)
        except Refusal as error:
            refuse = partial(store.refuse, code=error.code, reason=str(error))
            with suppress(OSError):  # a full disk does not hide why; the bundle is tried again
                await in_thread(refuse, *identity)
            raise
        finally:
            lock.close()

    def check_again(self, wanted: Offer) -> None:
        """Compare a bundle that was refused because of its columns again, without loading it.

        Raises:
            SchemaRefusal: it is still not compatible with what is served.
        """
        if self._incompatible is not None and self._incompatible[0] == wanted:
            self._check_contract(self._incompatible[1])

    async def record_again(self) -> None:
        """Record what is served, if the store could not when it was swapped in."""
        if self._unrecorded is not None:
            with suppress(OSError), await self._lock():
                await self._record(*self._unrecorded)

    async def close(self) -> None:
        """Stop waiting for replaced models."""
        for task in self._retiring:
            task.cancel()
        await asyncio.gather(*self._retiring, return_exceptions=True)

    def _check_age(self, manifest: Manifest) -> None:
        """Refuse a bundle that was made before the served one, if the setting says so."""
        made, served = manifest.created_at.removesuffix("Z"), self._served_made
        if self._resources.refuse_rollback and made < served:
            raise Refusal(
                "rollback",
                f"it was made at {made}Z, before the served one ({served}Z), and "
                "HALFCORE_FOLLOW_ROLLBACK is refuse: export the version again, or start the server "
                "with HALFCORE_FOLLOW_ROLLBACK=allow",
            )

    def _check_contract(self, manifest: Manifest) -> SchemaChange | None:
        """What the version changes for clients.

        Raises:
            SchemaRefusal: it is not compatible, and the setting refuses such versions.
        """
        if self._contract is None:
            return None
        change = self._contract.change(manifest)
        if self._contract.refuse and change and not change.compatible:
            uri = self._followed.uri
            raise SchemaRefusal(
                "schema_changed",
                f"it is not compatible with version {change.from_version}, which is still served: "
                f"{change}. To serve it, start the server with "
                "HALFCORE_FOLLOW_SCHEMA_CHANGES=allow, or follow it under another name "
                f"(NEW_NAME={uri}); "
                f"otherwise point {uri} at a version with the old columns and answers",
            )
        return change

    async def _lock(self) -> BinaryIO:
        store, name = self._resources.store, self._followed.name
        # Another process that releases its lock cannot wake this one
        while (lock := await self._resources.in_thread(store.try_lock, name)) is None:  # noqa: ASYNC110
            await asyncio.sleep(_LOCK_RETRY_S)
        return lock  # type: ignore[no-any-return]

    async def _on_disk(self, wanted: Offer) -> Bundle | None:
        """The bundle, if any worker or server accepted it before.

        Raises:
            Refusal: another worker refused it.
        """
        store, in_thread = self._resources.store, self._resources.in_thread
        identity = (self._followed.name, wanted.version, wanted.manifest_sha256)
        if known := await in_thread(store.refusal, *identity):
            raise Refusal(known.code, known.reason)
        path = await in_thread(store.find, *identity)
        try:
            return path and await in_thread(self._read, path)  # type: ignore[no-any-return]
        except BundleError as error:
            logger.error(
                "model %s: the bundle on disk is damaged; downloading it again: %s",
                self._followed.name,
                reason_of(error),
            )
            return None

    async def _download(self, wanted: Offer) -> Bundle:
        """Download, check and try a bundle; the store accepts it last."""
        resources, store = self._resources, self._resources.store
        in_thread = resources.in_thread
        made = asyncio.ensure_future(in_thread(store.staging, self._followed.name))
        try:
            staging = await asyncio.shield(made)
            await fetch(
                resources.client,
                wanted,
                staging,
                most_bytes=resources.most_bytes,
                timeout_s=resources.download_timeout_s,
                in_thread=in_thread,
                signed=resources.signers is not None,
            )
            source = await in_thread(self._read_download, staging)
            self._check_age(source.manifest)  # before it takes CPU time
            async with resources.turn:
                await resources.sandbox.run(staging, in_thread)
            identity = (wanted.version, wanted.manifest_sha256)
            path = await in_thread(store.accept, staging, *identity)
            return Bundle(path, source.manifest)
        finally:
            await asyncio.shield(self._discard(made))

    async def _discard(self, made: asyncio.Future[Path]) -> None:
        """Remove a temporary folder, also one that a thread is still making."""
        with suppress(OSError):  # it could not be made
            await self._resources.in_thread(self._resources.store.discard, await made)

    async def _load(self, source: Bundle) -> Prepared:
        """Load an accepted bundle; one that this process cannot load leaves the store."""
        try:
            async with self._resources.turn:
                return await self._resources.in_thread(self._prepare, source)  # type: ignore[no-any-return]
        except (BundleError, EngineError, MemoryError) as error:
            await self._resources.in_thread(self._resources.store.discard, source.path)
            raise Refusal(
                "load_failed",
                f"it passed the sandbox, but this process cannot load it: {reason_of(error)}",
            ) from error

    def _prepare(self, source: Bundle) -> Prepared:
        return prepare(source, max_batch_size=self._resources.limits.max_batch_size)

    async def _record(self, wanted: Offer, path: Path) -> None:
        """Record on disk what is served now. It is served also if that fails."""
        point = partial(
            self._resources.store.point,
            version=wanted.version,
            manifest_sha256=wanted.manifest_sha256,
            uri=self._followed.uri,
            workspace=self._resources.workspace,
        )
        name, role = self._followed.name, self._followed.role
        try:
            await self._resources.in_thread(point, name, role, path)
        except OSError as error:
            if self._unrecorded != (wanted, path):
                logger.warning(
                    "model %s version %s is served, but the store could not record that, so a "
                    "start without the registry would serve the version before it: %s; make room "
                    "in HALFCORE_STORE, its directory, and the next poll records it",
                    name,
                    wanted.version,
                    reason_of(error),
                )
            self._unrecorded = wanted, path
        else:
            self._unrecorded = None

    def _put_into_service(self, prepared: Prepared, version: str, manifest_sha256: str) -> None:
        """Replace the served model by changing one pointer: later requests get the new model,
        earlier ones are answered by the old one."""
        model = assemble(
            prepared,
            metrics=self._model_metrics,
            limits=self._resources.limits,
            executor=self._resources.inference,
            name=self._followed.name,
            version=version,
        )
        replaced = self._deliver(model)
        self._served_made = prepared.manifest.created_at.removesuffix("Z")
        self._reporter.model_loaded(version, manifest_sha256, model.loaded_at)
        if replaced is not None:
            retiring = asyncio.create_task(self._retire(replaced))
            self._retiring.add(retiring)
            retiring.add_done_callback(self._retiring.discard)

    async def _retire(self, model: LoadedModel) -> None:
        """Let a replaced model answer what it has accepted, then return its memory to the
        kernel."""
        await model.batcher.drain()
        del model
        await asyncio.sleep(_RELEASE_S)
        await self._resources.in_thread(give_back_memory)

    def _read(self, path: Path) -> Bundle:
        return bundle.read(path, any_name=True, signers=self._resources.signers)

    def _read_download(self, path: Path) -> Bundle:
        """Read a bundle that was just downloaded.

        Raises:
            Unavailable: the model's hash is wrong; the network may be the cause, so a retry may
                help.
            Refusal: anything else is wrong, which is the bundle's fault.
        """
        try:
            return self._read(path)
        except BundleError as error:
            if error.code == "model_sha256":
                raise Unavailable(error.code, error.reason) from None
            code = "signature" if error.code == "signature" else "bundle"
            raise Refusal(code, error.reason) from None
