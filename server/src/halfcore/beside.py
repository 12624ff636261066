"""What happens beside predictions: they are logged, and challengers are asked. Nothing of it when neither is configured."""

import asyncio
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from halfcore import bundle
from halfcore.bundle import BundleError
from halfcore.challenger import Challenger, Challengers, shadow_limits
from halfcore.engine import EngineError
from halfcore.log import logger, reason_of
from halfcore.metrics import Metrics
from halfcore.models import Limits, Models, load
from halfcore.prediction_log.log import PredictionLog
from halfcore.registry import sources
from halfcore.registry.following import Following
from halfcore.routes.prediction import Witness

if TYPE_CHECKING:
    from halfcore.registry.follow import Means


class Beside:
    """The log and the challengers of one worker, from start to end.

    Args:
        log: None if predictions are not logged.
        challengers: all of them.
    """

    def __init__(self, log: PredictionLog | None, challengers: Challengers) -> None:
        self.challengers = challengers
        self._log = log
        self._shadows = ThreadPoolExecutor(1, thread_name_prefix="shadow")  # begins its thread with the first batch
        self._watch: asyncio.Task[None] | None = None

    @property
    def witness(self) -> Witness | None:
        """What is told of every answered prediction."""
        if self.challengers:
            return self.challengers.answered
        return self._log.add if self._log else None

    def load(self, directory: Path, models: Models, *, metrics: Metrics, limits: Limits, executor: ThreadPoolExecutor) -> None:
        """Load the challengers that are bundles of `directory`; one that cannot be loaded is refused and costs nothing else."""
        for challenger in self.challengers.by_name.values():
            if challenger.spec.source.startswith("version:"):
                self.load_one(challenger, _versions(directory, challenger), metrics=metrics, limits=limits, executor=executor)
        for champion in models:
            if (its := self.challengers.by_name.get(champion.manifest.name)) is not None:
                its.against(champion)  # so that a misfit is known before the first request
        for name in self.challengers.by_name.keys() - models.names:
            logger.warning(
                "the challenger of %s is never asked: no model of that name is served, but %s; HALFCORE_CHALLENGERS wants the name "
                "that clients know: NAME=%s",
                name,
                ", ".join(sorted(models.names)) or "none",
                self.challengers.by_name[name].spec.source,
            )

    def load_one(
        self, challenger: Challenger, paths: Iterable[Path], *, metrics: Metrics, limits: Limits, executor: ThreadPoolExecutor
    ) -> None:
        """Load a challenger from the first of these bundles, the newest."""
        name, shadow = challenger.spec.name, challenger.spec.mode == "shadow"
        try:
            path = next(iter(paths), None)
            if path is None:
                raise BundleError(f"no bundle of {name} has {challenger.spec.source}")
            model = load(
                bundle.read(path),
                metrics=metrics.of(f"{name} ({challenger.spec.mode})"),
                limits=shadow_limits(limits) if shadow else limits,
                executor=self._shadows if shadow else executor,
                role="challenger",
            )
        except (BundleError, EngineError) as error:
            challenger.refuse(str(error))
            return
        challenger.put(model)
        logger.info("challenger of %s: version %s loaded as %s", name, model.manifest.version, challenger.spec.mode)

    @property
    def followed(self) -> list[Challenger]:
        """The challengers that come from a registry."""
        return [one for one in self.challengers.by_name.values() if one.spec.source.startswith("models:")]

    def follow(self, following: Following, means: "Means", metrics: Metrics) -> None:
        """Make a follower of each challenger from a registry, and ask what was asked last."""
        from halfcore.registry.follow import Follower  # late: an HTTP client comes with it

        for challenger in self.followed:
            name, mode = challenger.spec.name, challenger.spec.mode
            own = replace(means, limits=shadow_limits(means.limits), inference=self._shadows) if mode == "shadow" else means
            follower = Follower(
                sources.parse_one(f"{name}={challenger.spec.source}", role="challenger"),
                own,
                deliver=challenger.deliver,
                model_metrics=metrics.of(f"{name} ({mode})"),
                metrics=metrics.following_of(name, "challenger"),
            )
            follower.start_from_disk()
            following.add(follower)

    def start(self) -> None:
        """Begin, on the running loop."""
        if self._log:
            self._log.start()
        if any(challenger.spec.mode == "shadow" for challenger in self.challengers.by_name.values()):
            self._watch = asyncio.create_task(self.challengers.watch())

    async def close(self) -> None:
        """End, after the last request was answered: shadows first, for they are logged."""
        if self._watch:
            self._watch.cancel()
        await self.challengers.drain()
        self._shadows.shutdown()
        if self._log:
            await self._log.close()


def _versions(directory: Path, challenger: Challenger) -> list[Path]:
    """The bundles of the wanted version, the newest first."""
    wanted = challenger.spec.source.removeprefix("version:")
    found = {}
    for path in bundle.find(directory).get(challenger.spec.name, []):
        try:
            manifest = bundle.read_manifest(path)
        except BundleError as error:
            logger.warning("challenger of %s: a bundle is passed over: %s", challenger.spec.name, reason_of(error))
            continue
        if manifest.version == wanted:
            found[path] = manifest.created_at.removesuffix("Z")
    return sorted(found, key=lambda path: found[path], reverse=True)
