"""Names and versions of bundles, which must be valid names of folders."""

from __future__ import annotations

import re

SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
"""What a name or a version may look like: it becomes a folder."""


def safe_name(name: str) -> str:
    """The most similar valid name of a folder."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-._") or "model"
