"""The watch: read the registry, export what is due, tag the result, wait.

All its state is in the registry's tags, so it may be killed and restarted at any moment: a version
is due until it has a verdict.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import random
import socket
import time
import uuid
from typing import TYPE_CHECKING

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from model_export.bundle import tools
from model_export.errors import sentence, shorten
from model_export.publish import PASSED, REFUSED, TAG_EXPORT, publish, refuse, verdict
from model_export.watch.claim import Claim
from model_export.watch.run import exported_in_child
from model_export.watch.targets import find, parse

if TYPE_CHECKING:
    from collections.abc import Callable

    from mlflow.entities.model_registry import ModelVersion

    from model_export.watch.heartbeat import Heartbeat
    from model_export.watch.run import Outcome
    from model_export.watch.settings import WatchSettings
    from model_export.watch.targets import Target

logger = logging.getLogger("model_export.watch")
_LINE_CHARACTERS = 300
"""Longest failure in the log; MLflow's messages hold whole stacks."""
TAG_FINGERPRINT = f"{TAG_EXPORT}.fingerprint"
"""Hash of what a refusal depends on besides the model; when it changes, the version is tried
again."""


class Watch:
    """The service. One thread; each export runs in its own process."""

    def __init__(self, settings: WatchSettings, tracking_uri: str, heartbeat: Heartbeat) -> None:
        """Read the targets, without a request to MLflow.

        Raises:
            ExportError: a URI that cannot be watched.
        """
        self._settings, self._tracking_uri, self._heartbeat = settings, tracking_uri, heartbeat
        self._targets = [parse(uri) for uri in settings.models]
        self._client = MlflowClient()
        self._owner = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        self._fingerprint = _fingerprint(settings)
        self._failures: dict[str, int] = {}
        """Failures in a row, by version; those of MLflow itself under the key ""."""
        self._not_before: dict[str, float] = {}
        self._retried: set[str] = set()
        self._without: list[Target] = []
        """Targets that name no version; said once."""

    def run(self) -> bool:
        """Look repeatedly, or once; returns True if everything that was due has a verdict."""
        while True:
            settled = self._look()
            if self._settings.once:
                return settled
            self._wait(self._pause(""))

    def _look(self) -> bool:
        """Export what is due; True if everything that was due has a verdict."""
        self._heartbeat.beat("looking")
        try:
            found, without = find(self._client, self._targets)
            versions = [version for version in found if self._is_due(version)]
        except Exception as error:  # noqa: BLE001 - the watch survives any error and looks again
            _trace(error)
            self._note_failure("", f"MLflow does not answer: {sentence(error)}")
            return False
        self._failures.pop("", None)
        for target in without:
            if target not in self._without:
                logger.info("%s names no version yet: register one, or correct the name", target)
        self._without = without
        settled = [self._settle(version) for version in versions]  # all, even if one fails
        return all(settled)

    def _is_due(self, version: ModelVersion) -> bool:
        label, found = _label(version), verdict(version)
        if found == PASSED or time.monotonic() < self._not_before.get(label, 0.0):
            return False
        if found == REFUSED and version.tags.get(TAG_FINGERPRINT) == self._fingerprint:
            return self._settings.retry_refused and label not in self._retried
        return True

    def _settle(self, version: ModelVersion) -> bool:
        """Export one version and tag it; False if that failed, or if another watch claimed it."""
        label = _label(version)
        try:
            return self._claim_and_export(version)
        except Exception as error:  # noqa: BLE001 - the other versions are exported all the same
            _trace(error)
            self._note_failure(label, sentence(error))
            return False

    def _claim_and_export(self, version: ModelVersion) -> bool:
        label = _label(version)
        claim = Claim(
            self._client, version.name, str(version.version), self._owner, self._settings.lease_s
        )
        if not claim.take():
            logger.info("%s: another watch is exporting it", label)
            return False
        try:
            # Another watch may have finished it between the look and the claim.
            if not self._is_due(self._client.get_model_version(version.name, version.version)):
                return True
            logger.info("%s: exporting", label)
            started = time.monotonic()
            with exported_in_child(
                f"models:/{label}", self._tracking_uri, self._settings, self._ticker(label, claim)
            ) as outcome:
                self._conclude(version, outcome, time.monotonic() - started)
            return outcome.kind != "failed"
        finally:
            claim.release()

    def _conclude(self, version: ModelVersion, outcome: Outcome, seconds: float) -> None:
        label = _label(version)
        self._heartbeat.beat(f"tagging {label}")
        if outcome.kind == "failed":
            self._note_failure(label, outcome.reason)
            return
        if outcome.bundle is not None:
            uri = publish(outcome.bundle, version.name, str(version.version))
            logger.info("%s: passed in %.1f s, uploaded to %s", label, seconds, uri)
        else:
            refuse(
                version.name, str(version.version), outcome.reason, fingerprint=self._fingerprint
            )
            logger.warning("%s: refused after %.1f s: %s", label, seconds, outcome.reason)
        self._retried.add(label)
        self._failures.pop(label, None)
        self._not_before.pop(label, None)

    def _ticker(self, label: str, claim: Claim) -> Callable[[], None]:
        """A function to call while an export runs: beats, and renews the claim three times per
        lease."""
        renewed = time.monotonic()

        def tick() -> None:
            nonlocal renewed
            self._heartbeat.beat(f"exporting {label}")
            if time.monotonic() - renewed > self._settings.lease_s / 3:
                renewed = time.monotonic()
                try:
                    claim.renew()
                except MlflowException as error:
                    logger.warning(
                        "%s: cannot renew the claim: %s",
                        label,
                        sentence(error, _LINE_CHARACTERS),
                    )

        return tick

    def _note_failure(self, key: str, reason: str) -> None:
        self._failures[key] = self._failures.get(key, 0) + 1
        wait_s = self._pause(key)
        self._not_before[key] = time.monotonic() + wait_s
        logger.warning(
            "%s%s; trying again in %.1f s or later",
            f"{key}: " if key else "",
            shorten(reason, _LINE_CHARACTERS),
            wait_s,
        )

    def _pause(self, key: str) -> float:
        return pause(
            self._settings.interval_s,
            self._failures.get(key, 0),
            self._settings.max_backoff_s,
            random.random(),  # noqa: S311
        )

    def _wait(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self._heartbeat.beat("waiting")
            time.sleep(min(left, 5.0))


def pause(interval_s: float, failures: int, most_s: float, chance: float) -> float:
    """Seconds until the next try: the interval ±20 %, doubled for each failure in a row up to
    `most_s`. `chance`: 0…1."""
    return min(interval_s * 2.0 ** min(failures, 30), max(most_s, interval_s)) * (
        0.8 + 0.4 * chance
    )


def _trace(error: Exception) -> None:
    """Log the traceback of an unexpected error, at level DEBUG."""
    logger.debug("unexpected", exc_info=error)


def _label(version: ModelVersion) -> str:
    return f"{version.name}/{version.version}"


def _fingerprint(settings: WatchSettings) -> str:
    limits = [
        settings.time_limit_s,
        settings.memory_limit_mb,
        settings.gate_rows,
        settings.no_unpickle,
        settings.accept_unknown,
    ]
    return hashlib.sha256(json.dumps([tools.versions(), limits]).encode()).hexdigest()[:12]
