"""A file that records when the watch was last alive, and what it was doing. `model-export healthy
FILE` reads it for a container's health check.

Alive means that the loop runs. An unreachable MLflow does not make the watch unhealthy, because a
restart would not help.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

from model_export.bundle.files import replace_file
from model_export.errors import sentence

if TYPE_CHECKING:
    from pathlib import Path


class Heartbeat:
    """Writes the file, at most once a second."""

    def __init__(self, path: Path | None) -> None:
        """Write to `path`; with None, write nothing."""
        self._path, self._written, self._doing = path, 0.0, ""

    def beat(self, doing: str) -> None:
        """Record that the watch is alive, and what it is doing."""
        now = time.monotonic()
        if self._path is None or (doing == self._doing and now - self._written < 1.0):
            return
        self._written, self._doing = now, doing
        replace_file(self._path, json.dumps({"at": time.time(), "doing": doing}).encode())


def check(path: Path, max_age_s: float) -> tuple[bool, str]:
    """True if the watch was alive within the last `max_age_s` seconds; and a line that says so."""
    try:
        recorded = json.loads(path.read_text())
        age = time.time() - float(recorded["at"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        return False, f"{path}: no heartbeat: {sentence(error)}"
    return age <= max_age_s, f"{age:.0f} s ago: {recorded.get('doing')}"
