"""Names and versions of bundles, which must be valid names of folders; and the forms of MLflow's
URIs."""

from __future__ import annotations

import re

SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
"""What a name or a version may look like: it becomes a folder."""
REGISTERED = re.compile(r"models:/(?P<name>[^/]+?)(?:@(?P<alias>[^/@]+)|/(?P<rest>[^/]+))")
"""A name may hold an @: the last one is before the alias."""
LOGGED = re.compile(r"models:/(?P<model_id>m-[0-9a-f]+)")
NAMED = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)=(?P<uri>(?:models|runs):/.+)")
"""A public name before the URI, as in the server's settings."""
RUN = re.compile(r"runs:/(?P<run_id>[^/]+)/(?P<path>.+)")


def versions_of(name: str) -> str:
    """MLflow's filter for the versions of a model; a text in it has no escapes."""
    quote = '"' if "'" in name else "'"
    return f"name={quote}{name}{quote}"


def safe_name(name: str) -> str:
    """The most similar valid name of a folder."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-._") or "model"
