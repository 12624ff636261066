"""A file that says when the watch last was alive, and what it was at; `model-export healthy FILE`
reads it for a container's health check.

Alive means that its loop turns. MLflow being away does not make it unhealthy: starting it anew
would not help.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

from model_export.errors import sentence

if TYPE_CHECKING:
    from pathlib import Path


class Heartbeat:
    """Writes the file, at most once a second."""

    def __init__(self, path: Path | None) -> None:
        """Write to `path`, or nowhere."""
        self._path, self._written, self._doing = path, 0.0, ""

    def beat(self, doing: str) -> None:
        """Say that the watch is alive, and what it is at."""
        now = time.monotonic()
        if self._path is None or (doing == self._doing and now - self._written < 1.0):
            return
        self._written, self._doing = now, doing
        staging = self._path.with_name(f".{self._path.name}.new")
        staging.write_text(json.dumps({"at": time.time(), "doing": doing}))
        staging.replace(self._path)


def check(path: Path, max_age_s: float) -> tuple[bool, str]:
    """True where the watch was alive within `max_age_s` seconds; and the line that says so."""
    try:
        told = json.loads(path.read_text())
        age = time.time() - float(told["at"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        return False, f"{path}: no heartbeat: {sentence(error)}"
    return age <= max_age_s, f"{age:.0f} s ago: {told.get('doing')}"
