"""A tag that names the watch that is exporting a version, so that several watches share the work.

MLflow cannot set a tag only if it is absent, so two watches that claim at the same moment may both
succeed. That costs time only: `publish` checks what it uploaded, and the later upload wins as a
whole.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from mlflow.exceptions import MlflowException

if TYPE_CHECKING:
    from mlflow import MlflowClient

TAG_CLAIM = "halfcore.export.claim"


@dataclass(frozen=True)
class Claim:
    """One version, claimed by one watch for `lease_s` seconds at a time."""

    client: MlflowClient
    name: str
    version: str
    owner: str
    lease_s: float

    def take(self) -> bool:
        """Claim the version; False if another watch holds a claim that has not expired."""
        holder, until = _read(self._tag())
        if holder not in ("", self.owner) and until > datetime.now(UTC):
            return False
        self.renew()
        return _read(self._tag())[0] == self.owner

    def renew(self) -> None:
        """Extend the claim by another lease."""
        until = datetime.now(UTC) + timedelta(seconds=self.lease_s)
        self.client.set_model_version_tag(
            self.name,
            self.version,
            TAG_CLAIM,
            f"{self.owner} until {until.isoformat(timespec='milliseconds')}",
        )

    def release(self) -> None:
        """Remove the claim; if MLflow does not answer, it expires."""
        with suppress(MlflowException):
            if _read(self._tag())[0] == self.owner:
                self.client.delete_model_version_tag(self.name, self.version, TAG_CLAIM)

    def _tag(self) -> str:
        return str(self.client.get_model_version(self.name, self.version).tags.get(TAG_CLAIM, ""))


def _read(tag: str) -> tuple[str, datetime]:
    """Owner and end of a claim; an unreadable tag counts as no claim."""
    owner, _, until = tag.partition(" until ")
    try:
        return owner, datetime.fromisoformat(until).astimezone(UTC)
    except ValueError:
        return "", datetime.min.replace(tzinfo=UTC)
