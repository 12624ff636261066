"""Finds the versions to export: those that the watched URIs name at the moment."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from mlflow.exceptions import MlflowException

from model_export.errors import ExportError
from model_export.registry.client import NO_SUCH_THING, find_version, version_number
from model_export.registry.names import versions_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

_URI = re.compile(r"models:/(?P<name>[^/]+?)(?:@(?P<alias>[^/@]+)|/(?P<rest>[^/@]+))?")
_PATTERN = re.compile(r"[*?\[]")


@dataclass(frozen=True)
class Target:
    """One watched URI; without alias and rest, every version of the model."""

    name: str
    """May be a pattern as for file names: `*`, `churn-*`."""
    alias: str | None
    rest: str | None
    """A stage, a version's number, or `latest`."""

    def __str__(self) -> str:
        """As it was given."""
        reference = f"@{self.alias}" if self.alias else f"/{self.rest}" if self.rest else ""
        return f"models:/{self.name}{reference}"


def parse(uri: str) -> Target:
    """Read one URI.

    Raises:
        ExportError: it cannot be watched.
    """
    matched = _URI.fullmatch(uri)
    if matched is None:
        raise ExportError(
            f"{uri!r} cannot be watched: name it as models:/NAME@ALIAS, models:/NAME/STAGE or "
            "models:/NAME (all its versions)"
        )
    return Target(**matched.groupdict())


def find(
    client: MlflowClient, targets: Sequence[Target]
) -> tuple[list[ModelVersion], list[Target]]:
    """The versions that the targets name at the moment, each once, in the order of the targets; of
    one model the newest first. And the targets that name none.

    Raises:
        MlflowException: MLflow did not answer.
    """
    found: dict[tuple[str, str], ModelVersion] = {}
    without = []
    for target in targets:
        named = [
            version
            for name in _names(client, target.name)
            for version in _versions(client, name, target)
        ]
        for version in named:
            found.setdefault((version.name, str(version.version)), version)
        if not named:
            without.append(target)
    return [version for version in found.values() if version.status == "READY"], without


def _names(client: MlflowClient, pattern: str) -> Iterator[str]:
    if not _PATTERN.search(pattern):
        yield pattern
        return
    token = None
    while True:
        page = client.search_registered_models(max_results=100, page_token=token)
        yield from (model.name for model in page if matches(model.name, pattern))
        token = page.token
        if not token:
            return


def matches(name: str, pattern: str) -> bool:
    """Whether a pattern, or a name with brackets that is not meant as one, is this name."""
    return name == pattern or fnmatchcase(name, pattern)


def _versions(client: MlflowClient, name: str, target: Target) -> list[ModelVersion]:
    """The versions of one target; empty if the model, alias or stage does not exist (yet)."""
    try:
        if target.alias or target.rest:
            return [find_version(name, target.alias, target.rest)]
        found = client.search_model_versions(versions_of(name))
        return sorted(found, key=version_number, reverse=True)
    except MlflowException as error:
        if error.error_code in NO_SUCH_THING:
            return []
        raise
    except ExportError:
        return []
