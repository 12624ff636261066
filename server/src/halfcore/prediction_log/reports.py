"""What the prediction log writes to the server's log: each problem once, or once a minute."""

from time import monotonic

from halfcore.log import logger, reason_of
from halfcore.prediction_log.spool import SpoolFull

REPEAT_S = 60.0
"""Seconds in which the same problem is logged once."""


class Reports:
    """The problems of one prediction log."""

    def __init__(self) -> None:
        self._failed_write = "", 0.0
        """Why a write to the database failed, as it was last logged, and when."""
        self._waiting = "", -REPEAT_S
        """The same of what is on the disk."""
        self._problems: set[tuple[str, int | None]] = set()
        self._refused = 0
        """Predictions that the database refused and that are not logged as such yet."""
        self._refused_at = -REPEAT_S
        self._why_refused = ""
        self._dropped = 0
        """Predictions dropped for want of memory that are not logged as such yet."""
        self._dropped_at = -REPEAT_S

    def failed_write(self, why: str) -> None:
        """A write to the database failed."""
        # Not each time: a slow database takes from the disk what it did not take at once, so this
        # alternates with success; and a read-only one answers, but accepts no rows.
        logged, at = self._failed_write
        if why == logged and monotonic() < at + REPEAT_S:
            return
        logger.warning(
            "cannot write predictions to PostgreSQL; writing them to the disk until it works "
            "again: %s",
            why,
        )
        self._failed_write = why, monotonic()

    def waiting(self, why: str) -> None:
        """Predictions on the disk cannot be written to the database, which can be reached. Another
        reason may have sent them there, in another process even."""
        logged, at = self._waiting
        if why not in (logged, self._failed_write[0]) and monotonic() >= at + REPEAT_S:
            logger.warning(
                "cannot write the predictions on the disk to PostgreSQL; trying again: %s", why
            )
            self._waiting = why, monotonic()

    def waits_no_more(self) -> None:
        """The disk is empty: the next outage is reported again."""
        self._waiting = "", self._waiting[1]

    def refused(self, rows: int, why: str) -> None:
        """The database refused so many predictions, which may be none, for their content. Call it
        after each write: it also logs those of the minute before."""
        self._refused += rows
        self._why_refused = why or self._why_refused
        if self._refused and monotonic() >= self._refused_at + REPEAT_S:
            logger.error(
                "PostgreSQL refused %d predictions, which are not logged: %s; if a constraint was "
                "added to halfcore.prediction_log, drop it",
                self._refused,
                self._why_refused,
            )
            self._refused, self._refused_at = 0, monotonic()

    def full(self, error: OSError) -> None:
        """The disk does not take what the database did not take; call it once per outage."""
        logger.error(
            "cannot write predictions to the disk either; keeping them in memory: %s; make "
            "PostgreSQL work again, or %s",
            reason_of(error),
            "raise HALFCORE_PREDICTION_LOG_SPOOL_BYTES"
            if isinstance(error, SpoolFull)
            else "let the server write to HALFCORE_PREDICTION_LOG_SPOOL, on a disk with room",
        )

    def removed(self, rows: int) -> None:
        """Files of the spool are gone, with so many rows."""
        logger.error(
            "lost %d predictions: the files of the spool were removed; set "
            "HALFCORE_PREDICTION_LOG_SPOOL to a directory that no other program cleans",
            rows,
        )

    def drop(self) -> None:
        """Note a prediction that is dropped for want of memory; `dropped` logs it."""
        self._dropped += 1

    def dropped(self) -> None:
        """Log how many were dropped, if any were."""
        if self._dropped and monotonic() >= self._dropped_at + REPEAT_S:
            logger.error(
                "dropped %d predictions: the log's memory is full, and neither PostgreSQL nor the "
                "disk accepts rows; make one of the two work again",
                self._dropped,
            )
            self._dropped, self._dropped_at = 0, monotonic()

    def undeletable(self, error: OSError) -> None:
        """A segment whose rows are in the database cannot be deleted."""
        self._once(
            "cannot delete predictions from the disk that are in PostgreSQL now",
            error,
            "let the server write to HALFCORE_PREDICTION_LOG_SPOOL",
        )

    def unreadable(self, error: OSError) -> None:
        """A directory that another process left cannot be taken over."""
        self._once(
            "cannot read predictions that another process left on the disk",
            error,
            "make this server's user the owner of all files in HALFCORE_PREDICTION_LOG_SPOOL",
        )

    def _once(self, what: str, error: OSError, remedy: str) -> None:
        problem = what, error.errno  # not the file: an outage may leave hundreds of segments
        if problem not in self._problems:
            self._problems.add(problem)
            logger.warning("%s: %s; %s", what, reason_of(error), remedy)
