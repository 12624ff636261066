"""Checks that a bundle was proven for the model version whose tags lead to it.

`MlflowClient.copy_model_version` copies a version's tags with it, so the tags of a copy lead to the
bundle of the original. Both are the same model: MLflow stores no files for a copy, only the name
of the original. So the original's proof holds for the copy, and the copy is served at once, under
its own name and version. Tags that were copied by hand prove nothing about the files: the version
is refused.
"""

import re
from typing import NoReturn

import msgspec

from halfcore.registry.client import Client
from halfcore.registry.errors import NotOffered, Refusal
from halfcore.registry.resolve import EXPORT, MANIFEST_SHA256, Offer, version_of

MOST_HOPS = 10
"""Most copies of copies that are followed to the original."""
_COPIED = re.compile(r"models:/(?P<name>[^/]+)/(?P<version>[0-9]+)")


class Source(msgspec.Struct):
    """What the manifest says about the exported model."""

    resolved: str
    run_id: str | None = None
    model_id: str | None = None


class Proven(msgspec.Struct):
    """What the manifest says about the exported version."""

    version: str
    source: Source


async def check(client: Client, offer: Offer, proven: Proven) -> None:
    """Check that the offered version is the one that the bundle was proven for, or its copy.

    Raises:
        Refusal: according to the registry it is neither.
        Unavailable: the registry did not answer as it should.
    """
    its, source = offer.origin, proven.source
    for what, ours, theirs in (
        ("logged model", its.model_id, source.model_id),
        ("run", its.run_id, source.run_id),
    ):
        if ours and theirs and ours != theirs:
            _refuse(
                offer, proven, f"the version's {what} is {ours[:64]}, the bundle's {theirs[:64]}"
            )
    if proven.version == offer.version or (its.model_id and its.model_id == source.model_id):
        return
    if not await _is_copy(client, offer, proven):
        _refuse(offer, proven, "the registry does not say that it is a copy of that one")


async def _is_copy(client: Client, offer: Offer, proven: Proven) -> bool:
    """Whether the version's source leads to the exported version, perhaps through other copies."""
    source = offer.origin.source
    for _ in range(MOST_HOPS):
        if source == proven.source.resolved:
            return True
        copied = _COPIED.fullmatch(source)
        if copied is None:
            return False
        try:
            original = await version_of(client, copied["name"], copied["version"])
        except NotOffered:  # renamed or deleted since
            return False
        # The original may have been renamed since the export; its own tags identify it as well.
        if (original.version, original.tags.get(MANIFEST_SHA256)) == (
            proven.version,
            offer.manifest_sha256,
        ):
            return True
        source = original.origin.source
    return False


def _refuse(offer: Offer, proven: Proven, why: str) -> NoReturn:
    raise Refusal(
        "other_version",
        f"its tags lead to the bundle of {proven.source.resolved[:200]} (version "
        f"{proven.version[:20]!r}, expected {offer.version!r}), and "
        f"{why}: delete its tag {EXPORT}, and `model-export watch` exports it",
    )
