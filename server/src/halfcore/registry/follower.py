"""Follows one model: polls the registry, and has each new bundle taken into service (`swapper`) or
reports why it is not (`reporter`)."""

import asyncio
import random
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Literal

from halfcore.log import logger
from halfcore.metrics.counters import FollowMetrics, ModelMetrics
from halfcore.registry.contract import Contract
from halfcore.registry.errors import NotOffered, Refusal, RegistryError, SchemaRefusal, Unavailable
from halfcore.registry.reporter import Reporter
from halfcore.registry.resolve import Offer, offer, resolve
from halfcore.registry.resources import Resources
from halfcore.registry.sources import Followed
from halfcore.registry.status import Refused
from halfcore.registry.store import unwritable
from halfcore.registry.swapper import Deliver, Swapper

__all__ = ["Follower", "Resources"]

JITTER = 0.2
"""Share by which a period varies, so that many servers do not poll at the same time."""
PATIENT_ATTEMPTS = 5
"""Downloads that fail in a row before the time between them grows."""
MOST_DELAY_S = 300.0
MOST_DOUBLINGS = 32
"""Beyond any useful delay; a float overflows at 1,024."""

Outcome = Literal["unchanged", "swapped", "pending", "refused", "failed"]


class Follower:
    """One followed model.

    Args:
        followed: what to follow.
        resources: shared with other followers.
        deliver: takes each loaded model into service.
        contract: compares new versions with what clients rely on; None if clients do not call this
            model directly.
        model_metrics: the counters of the loaded models, kept from one version to the next.
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
        self._resources = resources
        self._reporter = Reporter(followed, resources.workspace, metrics)
        self.status = self._reporter.status
        self._swapper = Swapper(
            followed,
            resources,
            deliver=deliver,
            contract=contract,
            model_metrics=model_metrics,
            reporter=self._reporter,
        )
        self._hint = asyncio.Event()
        self._polling = asyncio.Lock()
        self._attempts = 0
        """Downloads of `_wanted`, or starts of its sandbox, that failed."""
        self._not_before = 0.0
        """Loop time of the next download."""
        self._wanted: Offer | None = None

    def start_from_disk(self) -> bool:
        """Serve what was served last, if its bundle is whole; return whether anything is.

        Blocks the event loop: nothing is served yet.
        """
        return self._swapper.load_from_disk()

    async def run(self, settled: Callable[[], None] = lambda: None) -> None:
        """Follow until cancelled; call `settled` after each poll, the first one included."""
        while True:
            delay_s = self._resources.period_s
            try:
                async with self._polling:
                    await self.poll()
            except Unavailable as error:
                delay_s = max(delay_s, error.retry_after_s or 0.0)
            except Exception as error:  # noqa: BLE001
                # No error of a registry, a disk or a bundle may end this loop; cancelling still
                # does.
                reason = "the follower failed; the log has the reason"
                self._reporter.poll_failed("internal_error", reason)
                logger.error("model %s: the follower failed", self.followed.name, exc_info=error)
            settled()
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
        """Poll now, and retry what was refused."""
        async with self._polling:
            self._not_before = 0.0
            forget = self._resources.store.forget_refusals
            await self._resources.in_thread(forget, self.followed.name)
            try:
                return await self.poll()
            except Unavailable:
                return "failed"

    async def close(self) -> None:
        """Stop waiting for replaced models."""
        await self._swapper.close()

    async def poll(self) -> Outcome:
        """Ask the registry once, and take the bundle that it names into service.

        Raises:
            Unavailable: the registry did not answer as it should; the status says so.
        """
        version = ""
        try:
            found = await resolve(self._resources.client, self.followed)
            version = found.version
            self._reporter.registry_answered()
            wanted = offer(found)
        except NotOffered as error:
            self._reporter.registry_answered()
            self._reporter.waiting(version, error, self._attempts)
            return "pending"
        except Refusal as error:
            return self._refuse(_refused(version, error))
        except Unavailable as error:
            self._reporter.poll_failed(error.code, str(error))
            raise
        if self._serves(wanted):
            self._reporter.unchanged()
            await self._swapper.record_again()
            return "unchanged"
        return await self._try(wanted)

    async def _try(self, wanted: Offer) -> Outcome:
        """Take an offered bundle into service, or report why not."""
        if wanted != self._wanted:
            self._wanted, self._attempts, self._not_before = wanted, 0, 0.0
        if refused := await self._known_refusal(wanted):
            return self._refuse(refused)
        if asyncio.get_running_loop().time() < self._not_before:
            return "pending"
        self._reporter.loading(wanted.version, self._attempts)
        try:
            await self._swapper.swap(wanted)
        except (Refusal, SchemaRefusal) as error:
            return self._refuse(_refused(wanted.version, error))
        except Unavailable as error:
            return self._retry_later(wanted.version, error)
        except OSError as error:
            unavailable = Unavailable("disk", unwritable(error))
            return self._retry_later(wanted.version, unavailable)
        self._reporter.swap_recorded()
        return "swapped"

    async def _known_refusal(self, wanted: Offer) -> Refused | None:
        """Why a bundle is refused, as far as that is known without trying it."""
        identity = (wanted.version, wanted.manifest_sha256)
        refusal = self._resources.store.refusal
        if known := await self._resources.in_thread(refusal, self.followed.name, *identity):
            return Refused(version=known.version, code=known.code, reason=known.reason, at=known.at)
        try:
            self._swapper.check_again(wanted)
        except SchemaRefusal as error:
            return _refused(wanted.version, error)
        return None

    def _serves(self, wanted: Offer) -> bool:
        served = self.status.served
        return served is not None and (served.version, served.manifest_sha256) == (
            wanted.version,
            wanted.manifest_sha256,
        )

    def _retry_later(self, version: str, error: Unavailable) -> Outcome:
        """A bundle could not be fetched or tried: retry it, after several failures at growing
        intervals."""
        self._attempts += 1
        delay_s, period_s = 0.0, self._resources.period_s
        if self._attempts >= PATIENT_ATTEMPTS:
            doublings = min(self._attempts - PATIENT_ATTEMPTS, MOST_DOUBLINGS)
            growth = 2.0**doublings
            delay_s = min(period_s * growth, max(MOST_DELAY_S, period_s))
        delay_s = max(delay_s, error.retry_after_s or 0.0)
        self._not_before = asyncio.get_running_loop().time() + delay_s
        self._reporter.try_failed(version, error, self._attempts)
        return "failed"

    def _refuse(self, refused: Refused) -> Outcome:
        self._reporter.refused(refused)
        return "refused"


def _refused(version: str, error: RegistryError) -> Refused:
    return Refused(version=version, code=error.code, reason=str(error), at=datetime.now(UTC))
