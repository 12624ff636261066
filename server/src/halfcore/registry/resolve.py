"""Finds the bundle that the exporter made from the version that a `models:/` URI names, over
MLflow's REST API."""

import re
from typing import Any, NamedTuple

from halfcore.registry.client import Client
from halfcore.registry.errors import NotOffered, Refusal, Unavailable
from halfcore.registry.sources import Followed

BUNDLE, MANIFEST_SHA256, FORMAT = (
    "halfcore.bundle",
    "halfcore.manifest_sha256",
    "halfcore.bundle.format",
)
EXPORT, EXPORT_REASON = "halfcore.export", "halfcore.export.reason"
"""The tags with which the exporter marks a model version (docs/bundle-format.md)."""
_RUN = re.compile(r"runs:/(?P<run_id>[A-Za-z0-9_-]{1,64})/(?P<path>[A-Za-z0-9._/-]{1,500})")
_SHA256 = re.compile(r"[0-9a-f]{64}")


class Origin(NamedTuple):
    """Where a version's files are from, according to the registry; empty: it does not say."""

    source: str = ""
    """Of a copy `models:/NAME/VERSION`, the version that was copied."""
    run_id: str = ""
    """The run that produced the version."""
    model_id: str = ""
    """MLflow 3's logged model that it was registered from."""


class Version(NamedTuple):
    """A version of a registered model."""

    version: str
    status: str
    tags: dict[str, str]
    origin: Origin = Origin()


_ADVICE = {
    "alias": "register a version and set its alias",
    "stage": "register a version and move it to the stage",
    "version": "register it",
    "latest": "register a version",
}
"""What to do where the registry has nothing to follow."""


class Offer(NamedTuple):
    """A bundle that is ready in the registry, identified by the version and the manifest's
    hash."""

    version: str
    manifest_sha256: str
    run_id: str
    path: str
    """Folder among the run's artifacts."""
    origin: Origin = Origin()
    """The version's origin, not the bundle's."""


async def resolve(client: Client, followed: Followed) -> Version:
    """The version that the registry names now.

    Raises:
        NotOffered: no such model, alias, stage or version.
        Unavailable: the registry did not answer as it should.
    """
    try:
        return _version(await _found(client, followed))
    except NotOffered as error:
        why, advice = str(error).rstrip("."), _ADVICE[followed.kind]
        raise NotOffered(
            error.code, f"{followed.uri} names no version: {why}; {advice}, or correct the setting"
        ) from None
    except (KeyError, TypeError, ValueError, AttributeError):
        raise _not_mlflow() from None


async def _found(client: Client, followed: Followed) -> dict[str, Any]:
    """The version as MLflow describes it; also raises what a malformed answer leads to."""
    name, reference = followed.registered, followed.reference
    if followed.kind == "alias":
        answer = await client.get("registered-models/alias", name=name, alias=reference)
        return answer["model_version"]  # type: ignore[no-any-return]
    if followed.kind == "version":
        answer = await client.get("model-versions/get", name=name, version=reference)
        return answer["model_version"]  # type: ignore[no-any-return]
    stages = {"stages": reference.capitalize()} if followed.kind == "stage" else {}
    answer = await client.get("registered-models/get-latest-versions", name=name, **stages)
    versions = answer.get("model_versions") or []
    if not versions:
        raise NotOffered("not_found", f"no version of {name} is in {reference}")
    return max(versions, key=lambda one: int(one["version"]))


def offer(version: Version) -> Offer:
    """The version's bundle.

    Raises:
        NotOffered: it is not registered completely, or not exported yet.
        Refusal: the exporter refused it, or its tags do not say where the bundle is.
    """
    tags = version.tags
    if version.status != "READY":
        raise NotOffered("not_ready", f"the version is {version.status}")
    _check_export(version)
    if (form := tags.get(FORMAT)) != "1":
        raise Refusal("bundle_format", f"tag {FORMAT} {(form or '')[:20]!r}, expected '1'")
    place = _RUN.fullmatch(tags.get(BUNDLE, ""))
    if place is None or ".." in place["path"].split("/"):
        raise Refusal(
            "bundle_tag",
            f"tag {BUNDLE} {tags.get(BUNDLE, '')[:100]!r}, expected runs:/RUN_ID/FOLDER",
        )
    if not _SHA256.fullmatch(sha256 := tags.get(MANIFEST_SHA256, "")):
        raise Refusal(
            "bundle_tag", f"tag {MANIFEST_SHA256} {sha256[:70]!r}, expected 64 hexadecimal digits"
        )
    return Offer(version.version, sha256, place["run_id"], place["path"].strip("/"), version.origin)


def _check_export(version: Version) -> None:
    """Return if the exporter passed the version; raises as `offer`."""
    match version.tags.get(EXPORT):
        case "passed":
            pass
        case "refused":
            reason = " ".join(version.tags.get(EXPORT_REASON, "without a reason").split())[:500]
            copied = (
                f" (perhaps a verdict on {version.origin.source[:200]}, from which it was copied "
                "with its tags)"
            )
            raise Refusal(
                "export_refused",
                f"the exporter refused it: {reason}" + (copied if _is_copy(version) else ""),
            )
        case None:
            raise NotOffered(
                "not_exported",
                f"it has no tag {EXPORT}: it is not exported yet (`model-export watch` does it)",
            )
        case other:
            raise Refusal("bundle_tag", f"tag {EXPORT} {other[:100]!r}, expected passed or refused")


def _is_copy(version: Version) -> bool:
    return re.fullmatch(r"models:/[^/]+/[0-9]+", version.origin.source) is not None


async def version_of(client: Client, name: str, version: str) -> Version:
    """A version by its number; raises as `resolve`."""
    try:
        return _version(
            (await client.get("model-versions/get", name=name, version=version))["model_version"]
        )
    except (KeyError, TypeError, AttributeError):
        raise _not_mlflow() from None


def _version(found: dict[str, Any]) -> Version:
    # As text: the open-source server answers with strings, others with numbers.
    origin = Origin(*(str(found.get(key) or "") for key in Origin._fields))
    return Version(str(found["version"]), str(found.get("status", "READY")), _tags(found), origin)


def _not_mlflow() -> Unavailable:
    return Unavailable(
        "not_mlflow", "the registry's answer has no model version, expected MLflow's REST API"
    )


def _tags(found: dict[str, Any]) -> dict[str, str]:
    return {str(tag["key"]): str(tag.get("value", "")) for tag in found.get("tags") or []}
