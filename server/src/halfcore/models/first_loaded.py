"""What the first worker of a server loaded from the folder of bundles.

A worker that starts later, in place of one that ended, loads the same bundles, whatever was copied
into the folder meanwhile: otherwise a client would get answers of two versions by turns.
"""

import json
import os
from contextlib import suppress
from pathlib import Path

_FILE = "bundles.json"


def read(shared: Path | None) -> dict[str, str] | None:
    """Model name → name of its bundle's folder; None: no worker has loaded the models yet.

    Args:
        shared: the directory that the workers share; None if there is only one.
    """
    if shared is None:
        return None
    try:
        found: dict[str, str] = json.loads((shared / _FILE).read_text())
    except (OSError, ValueError):
        return None
    return found


def write(shared: Path | None, loaded: dict[str, str]) -> None:
    """Keep it for later workers, unless another one was first."""
    if shared is None:
        return
    own = shared / f"{os.getpid()}.{_FILE}"
    with suppress(OSError):  # a full disk, say: the next worker then loads the newest bundles
        own.write_text(json.dumps(loaded))
        with suppress(FileExistsError):
            os.link(own, shared / _FILE)
        own.unlink()
