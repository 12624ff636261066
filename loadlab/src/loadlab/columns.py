"""Columns of a bundle's model that its graph does not read, and what a request has for them."""

from typing import Any

_VALUES = {"string": "a", "datetime": "2026-01-01T00:00:00", "binary": "YQ=="}
"""By MLflow's type, in JSON; null for others. A bundle holds no values of these columns: they are
often names of people."""


def unread(manifest: dict[str, Any]) -> dict[str, Any]:
    """A value for each column of the model's signature that the graph does not read. Clients send
    these columns, and a service that checks rows against the signature, as `mlflow.pyfunc` does,
    refuses rows without them."""
    ignored = manifest.get("ignored", []) if manifest["named"] else []
    return {column["name"]: _VALUES.get(column["type"]) for column in ignored}
