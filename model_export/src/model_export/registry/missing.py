"""The error text for a model, version, alias or stage that the registry does not have: what exists
instead, and the command to type."""

from __future__ import annotations

import re
import shlex
from contextlib import suppress
from difflib import get_close_matches
from typing import TYPE_CHECKING

import mlflow
from mlflow.exceptions import MlflowException

from model_export.errors import redact, shorten
from model_export.registry.names import versions_of

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion, RegisteredModel

_SHOWN = 8
"""Versions, aliases or names in one line."""
_MODELS = 1000
"""Registered models to search for a similar name."""
_HAS = {True: "a similar one is", False: "similar ones are"}
_LOGGED = re.compile(r"models:/m-[0-9a-f]+")
_ASKED = re.compile(r"(?:models:/*)?(?P<name>[^/:]+?)(?:@(?P<alias>[^/@]*)|/(?P<rest>[^/@]*))?/?")


def hint(uri: str) -> str | None:
    """The sentence for a URI that names nothing; None if the registry cannot help.

    Args:
        uri: models:/NAME@ALIAS, models:/NAME/STAGE, models:/NAME/VERSION, or an incomplete one:
            models:/NAME, NAME.
    """
    asked = _ASKED.fullmatch(uri)
    if asked is None or _LOGGED.fullmatch(uri) or ("/" in uri and not uri.startswith("models:")):
        return None
    client = mlflow.MlflowClient()
    try:
        model = client.get_registered_model(asked["name"])
        newest = client.search_model_versions(
            versions_of(asked["name"]), max_results=_SHOWN + 1, order_by=["version_number DESC"]
        )
    except (MlflowException, OSError):
        return _similar(client, asked["name"]) if uri.startswith("models:") else None
    versions = list(newest)
    what = _what(uri, **asked.groupdict())
    if not versions:
        return f"{what}; it has no version yet: register one, or name another model"
    return (
        f"{what}; it has {_versions(versions)}{_aliases(model)}; "
        f"{_command(model, versions, asked['alias'] or asked['rest'] or '')}"
    )


def _what(uri: str, name: str, alias: str | None, rest: str | None) -> str:
    if uri.startswith("models://"):
        return f'the model "{name}" has one slash before its name: models:/{name}'
    if alias:
        return f'the model "{name}" has no alias "{alias}"'
    if not rest:
        return f'the model "{name}" is named without a version'
    if rest.isdigit():
        return f'the model "{name}" has no version {rest}'
    return f'the model "{name}" has no version in the stage "{rest}"'


def _versions(versions: list[ModelVersion]) -> str:
    shown = [_version(version) for version in versions[:_SHOWN]][::-1]
    return (
        f"{'version' if len(versions) == 1 else 'versions'} "
        f"{'…, ' if len(versions) > _SHOWN else ''}{', '.join(shown)}"
    )


def _version(version: ModelVersion) -> str:
    stage = version.current_stage
    return (
        f"{version.version} ({stage})" if stage not in (None, "", "None") else str(version.version)
    )


def _aliases(model: RegisteredModel) -> str:
    aliases = sorted(model.aliases.items())
    if not aliases:
        return " and no aliases"
    shown = [f"{alias} → {version}" for alias, version in aliases[:_SHOWN]]
    more = ", …" if len(aliases) > _SHOWN else ""
    return f" and {'alias' if len(aliases) == 1 else 'aliases'} {', '.join(shown)}{more}"


def _command(model: RegisteredModel, versions: list[ModelVersion], asked: str) -> str:
    """The command to type: with the alias or version that was probably meant, otherwise with the
    newest version."""
    meant = next((f"@{alias}" for alias in model.aliases if alias.lower() == asked.lower()), None)
    meant = meant or next(
        (f"/{version.version}" for version in versions if str(version.version) == asked), None
    )
    uri = shlex.quote(f"models:/{model.name}{meant or '/' + str(versions[0].version)}")
    what = (
        "you may have meant"
        if meant
        else "export it"
        if len(versions) == 1
        else "export one of them"
    )
    return f"{what}: model-export export {uri}"


def _similar(client: mlflow.MlflowClient, name: str) -> str:
    said = f'the registry has no model "{name}"'
    names: list[str] = []
    with suppress(MlflowException, OSError):
        names = [model.name for model in client.search_registered_models(max_results=_MODELS)]
    if not names:
        where = shorten(redact(mlflow.get_tracking_uri()), 200)
        return (
            f"{said}, nor any other; is {where} the right MLflow (--tracking-uri, "
            "MLFLOW_TRACKING_URI)?"
        )
    folded = {one.lower(): one for one in names}
    close = [
        folded[one] for one in get_close_matches(name.lower(), list(folded), n=_SHOWN, cutoff=0.5)
    ]
    close += [one for one in names if name.lower() in one.lower() and one not in close]
    shown = close[:_SHOWN] or sorted(names)[:_SHOWN]
    more = ", …" if not close and len(names) > _SHOWN else ""
    has = _HAS[len(shown) == 1] if close else "it has"
    return f"{said}; {has} {', '.join(shown)}{more}: name one with a version or an alias"
