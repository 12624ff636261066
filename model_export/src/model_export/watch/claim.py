"""A tag that says who is exporting a version, so that several watches share the work instead of
doubling it.

MLflow cannot set a tag only where there is none, so two watches that claim at the very same moment
may both believe that they have it. That costs time and nothing else: `publish` checks what it has
uploaded, and the later one of two wins as a whole.
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
    """One version, claimed for a while by one watch."""

    client: MlflowClient
    name: str
    version: str
    owner: str
    lease_s: float

    def take(self) -> bool:
        """Claim the version; False where another has it, and its time is not up."""
        holder, until = _read(self._tag())
        if holder not in ("", self.owner) and until > datetime.now(UTC):
            return False
        self.renew()
        return _read(self._tag())[0] == self.owner

    def renew(self) -> None:
        """Make the claim last for another lease."""
        until = datetime.now(UTC) + timedelta(seconds=self.lease_s)
        self.client.set_model_version_tag(
            self.name,
            self.version,
            TAG_CLAIM,
            f"{self.owner} until {until.isoformat(timespec='milliseconds')}",
        )

    def release(self) -> None:
        """Give it back; where MLflow does not answer, time does."""
        with suppress(MlflowException):
            if _read(self._tag())[0] == self.owner:
                self.client.delete_model_version_tag(self.name, self.version, TAG_CLAIM)

    def _tag(self) -> str:
        return str(self.client.get_model_version(self.name, self.version).tags.get(TAG_CLAIM, ""))


def _read(tag: str) -> tuple[str, datetime]:
    """Owner and end of a claim; a tag that says neither is nobody's."""
    owner, _, until = tag.partition(" until ")
    try:
        return owner, datetime.fromisoformat(until).astimezone(UTC)
    except ValueError:
        return "", datetime.min.replace(tzinfo=UTC)
