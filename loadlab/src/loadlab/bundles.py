"""What the lab reads in a bundle's manifest; docs/bundle-format.md says what is in it."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

_VALUES = {"string": "a", "datetime": "2026-01-01T00:00:00", "binary": "YQ=="}
"""By MLflow's type, in JSON; null for others. A bundle holds no values of these columns: they are
often names of people."""


def of_model(bundles: Path, model: str) -> list[Path]:
    """The folders of a model's bundles."""
    return [file.parent for file in bundles.glob(f"{model}/[!.]*/manifest.json")]


def newest(folders: Iterable[Path]) -> tuple[dict[str, Any], Path]:
    """The manifest that was made last, and its bundle."""
    found = [(read_manifest(folder), folder) for folder in folders]
    return max(found, key=lambda each: str(each[0]["created_at"]))


def read_manifest(bundle: Path) -> dict[str, Any]:
    """A bundle's manifest."""
    read: dict[str, Any] = json.loads((bundle / "manifest.json").read_text())
    return read


def unread(manifest: dict[str, Any]) -> dict[str, Any]:
    """A value for each column of the model's signature that the graph does not read. Clients send
    these columns, and a service that checks rows against the signature, as `mlflow.pyfunc` does,
    refuses rows without them."""
    ignored = manifest.get("ignored", []) if manifest["named"] else []
    return {column["name"]: _VALUES.get(column["type"]) for column in ignored}
