"""An environment of its own for clients whose dependencies contradict this project's."""

import os
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).parents[1] / "protocols/clients"
_OURS = ("UV_", "VIRTUAL_ENV")


def other_clients(folder: Path) -> Path:
    """Install the locked clients into a folder; returns its Python."""
    environment = {name: v for name, v in os.environ.items() if not name.startswith(_OURS)}
    kept = {name: v for name, v in os.environ.items() if name in ("UV_CACHE_DIR", "UV_INDEX_URL")}
    subprocess.run(
        ["uv", "sync", "--quiet", "--locked", "--python", sys.executable],
        cwd=PROJECT,
        env=environment | kept | {"UV_PROJECT_ENVIRONMENT": str(folder)},
        check=True,
    )
    return folder / "bin/python"
