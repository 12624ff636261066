"""Reports what a follower does: in its `Status`, in its metrics, and in the log, there once per
change."""

from datetime import datetime
from time import monotonic, time

from halfcore.log import logger
from halfcore.metrics.counters import FollowMetrics
from halfcore.registry.contract import SchemaChange
from halfcore.registry.errors import RegistryError, Unavailable
from halfcore.registry.sources import Followed
from halfcore.registry.status import Pending, Refused, Served, Status


class Reporter:
    """Keeps the status, the metrics and the log of one follower consistent.

    Args:
        followed: what is followed.
        workspace: the MLflow workspace; empty: the default one.
        metrics: the follower's counters.
    """

    def __init__(self, followed: Followed, workspace: str, metrics: FollowMetrics) -> None:
        self.status = Status(
            name=followed.name,
            role=followed.role,
            uri=followed.uri,
            workspace=workspace or None,
        )
        self._metrics = metrics
        self._failed: tuple[str, str] | None = None
        """The version that could not be fetched or tried, and why, as the log has it."""

    def registry_answered(self) -> None:
        """The registry answered a poll as it should."""
        self.status.last_success = monotonic()
        self.status.error = None
        self._metrics.last_success = time()

    def poll_failed(self, code: str, reason: str) -> None:
        """A poll failed; the served model stays."""
        if self.status.error != reason:
            logger.warning("model %s: %s", self.status.name, reason)
        self.status.error = reason
        self._metrics.count_poll_failure(code)

    def unchanged(self) -> None:
        """The registry names the bundle that is served."""
        self.status.pending = self.status.refused = None
        self._metrics.pending = 0

    def loading(self, version: str, attempts: int) -> None:
        """A bundle is being downloaded and tried."""
        reason = "downloading it and trying it in the sandbox"
        self._set_pending(version, "loading", reason, attempts)

    def waiting(self, version: str, error: RegistryError, attempts: int) -> None:
        """There is nothing to load yet."""
        known = self.status.pending
        if known is None or (known.version, known.reason) != (version, str(error)):
            served = self.status.served
            logger.info(
                "model %s%s: waiting%s: %s",
                self.status.name,
                version and f" version {version}",
                f", version {served.version} keeps answering" if served else "",
                error,
            )
        self._set_pending(version, error.code, str(error), attempts)

    def try_failed(self, version: str, error: Unavailable, attempts: int) -> None:
        """A version could not be fetched or tried, and the follower will try again."""
        if self._failed != (version, str(error)):
            tried = error.code in ("sandbox_failed", "memory_short")
            what = "trying the bundle" if tried else "download"
            logger.warning(
                "model %s version %s: %s failed, trying again: %s",
                self.status.name,
                version,
                what,
                error,
            )
        self._failed = version, str(error)
        self._set_pending(version, error.code, str(error), attempts)
        self._metrics.count(error.code)

    def refused(self, refused: Refused) -> None:
        """A version is not served; the log and the metrics get this once, not at every poll."""
        known = self.status.refused
        if known is None or (known.version, known.reason) != (refused.version, refused.reason):
            logger.error(
                "model %s version %s: refused: %s",
                self.status.name,
                refused.version,
                refused.reason,
            )
            self._metrics.count(refused.code)
            self.status.refused = refused
        self.status.pending = None
        self._metrics.pending = 0

    def model_loaded(self, version: str, manifest_sha256: str, since: datetime) -> None:
        """A version, from the registry or from disk, answers from now on."""
        self.status.served = Served(version=version, manifest_sha256=manifest_sha256, since=since)
        self.status.pending = self.status.refused = self._failed = None
        self._metrics.served_version, self._metrics.pending = version, 0

    def now_serving(self, version: str, change: SchemaChange | None) -> None:
        """Log a version from the registry that is served now, and what it changed for clients."""
        name = self.status.name
        logger.info("now serving model %s version %s as %s", name, version, self.status.role)
        self.status.schema_change = change
        if change is None:
            return
        self._metrics.count_schema_change(compatible=change.compatible)
        if change.compatible:
            logger.info(
                "model %s version %s accepts more than version %s: %s",
                name,
                version,
                change.from_version,
                change,
            )
        else:
            self._warn_incompatible(version, change)

    def swap_recorded(self) -> None:
        """The swap is complete: the store has recorded what is served."""
        self._metrics.count("swapped")

    def _warn_incompatible(self, version: str, change: SchemaChange) -> None:
        logger.warning(
            "model %s version %s is not compatible with version %s, and clients may get 422 "
            "or other answers: %s. Point %s back "
            "to undo it; HALFCORE_FOLLOW_SCHEMA_CHANGES=refuse keeps such versions out",
            self.status.name,
            version,
            change.from_version,
            change,
            self.status.uri,
        )

    def _set_pending(self, version: str, code: str, reason: str, attempts: int) -> None:
        self.status.pending = Pending(version=version, code=code, reason=reason, attempts=attempts)
        self.status.refused = None
        self._metrics.pending = 1
