"""The last good catalogue on disk, for a start while PostgreSQL is unreachable: clients that rely
on a default are not refused meanwhile."""

import os
from contextlib import suppress
from datetime import datetime
from pathlib import Path

import msgspec

from halfcore.catalog.entries import Entry
from halfcore.log import logger, reason_of


class Snapshot(msgspec.Struct, frozen=True):
    """What was accepted, by model, and when it was read (UTC)."""

    read_at: datetime
    models: dict[str, tuple[Entry, ...]]


def file_in(state: Path) -> Path:
    """The snapshot's path in the directory of what survives a restart."""
    return state / "catalogue.json"


def load(file: Path) -> Snapshot | None:
    """Read a snapshot; None if there is none, or, with a warning in the log, if it cannot be
    read."""
    try:
        return msgspec.json.decode(file.read_bytes(), type=Snapshot)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        logger.warning(
            "cannot read the feature catalogue on disk, %s; starting without it: %s",
            file,
            reason_of(error),
        )
        return None


def save(file: Path, snapshot: Snapshot) -> None:
    """Replace the last snapshot atomically; logs a warning if it cannot be written. Blocks."""
    # With the host's name: in containers that share the directory every server is process 1.
    partial = file.with_name(f".{file.name}.{os.uname().nodename}.{os.getpid()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as writing:
            writing.write(msgspec.json.encode(snapshot))
            writing.flush()
            os.fsync(writing.fileno())
        partial.replace(file)
    except OSError as error:
        logger.warning(
            "cannot save the feature catalogue to disk, so a start without PostgreSQL would not "
            "have it: %s; check HALFCORE_STATE, its directory",
            reason_of(error),
        )
        with suppress(OSError):
            partial.unlink(missing_ok=True)
