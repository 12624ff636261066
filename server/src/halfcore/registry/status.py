"""What a follower reports about itself, in `GET /models/{name}`, `/health` and the log."""

from datetime import datetime
from time import monotonic
from typing import Any

import msgspec

from halfcore.registry.contract import SchemaChange


class Served(msgspec.Struct, frozen=True, kw_only=True):
    """The version that answers."""

    version: str
    manifest_sha256: str
    since: datetime


class Pending(msgspec.Struct, frozen=True, kw_only=True):
    """A version that the registry names and that is not served yet."""

    version: str
    code: str
    """`loading`, or why not: `not_exported`, `timeout`, …"""
    reason: str
    attempts: int = 0
    """Downloads that failed so far; the follower retries."""


class Refused(msgspec.Struct, frozen=True, kw_only=True):
    """A version that the registry names and that will not be served."""

    version: str
    code: str
    reason: str
    at: datetime


class Status(msgspec.Struct, kw_only=True):
    """One followed model."""

    name: str
    role: str
    uri: str
    workspace: str | None = None
    """The MLflow workspace, if one is set."""
    served: Served | None = None
    pending: Pending | None = None
    refused: Refused | None = None
    schema_change: SchemaChange | None = None
    """What the served version changed for clients compared with the version before it; None if
    nothing, or if it is the first."""
    last_success: float | None = None
    """When the registry last answered as it should, of `monotonic`: a corrected clock changes no
    age."""
    error: str | None = None
    """Why the last poll failed; None if it did not."""


def described(status: Status) -> dict[str, Any]:
    """A status as JSON values, with the age of the last good poll instead of its time."""
    document: dict[str, Any] = msgspec.to_builtins(status)
    del document["name"], document["role"], document["last_success"]
    last = status.last_success
    return document | {"last_success_age_s": None if last is None else round(monotonic() - last, 1)}
