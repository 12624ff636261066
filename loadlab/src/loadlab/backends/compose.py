"""Containers: `docker compose --profile TIER up --wait`, limits read back from the containers' control groups."""

import json
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from loadlab import cgroup, tiers
from loadlab.backends.serving import BackendFailed, Serving
from loadlab.process import CannotStart, free_port
from loadlab.tiers import Tier

_UP_S, _DOWN_S, _ASK_S = 180, 60, 20


def missing(tier: Tier, root: Path) -> str:
    """Why there can be no containers of this tier here, or nothing."""
    if not shutil.which("docker"):
        return "docker is not installed"
    if _docker(root, "info", "--format", "{{.ServerVersion}}").returncode:
        return "the Docker engine does not answer"
    if _docker(root, "compose", "version").returncode:
        return "docker has no compose plugin"
    if _docker(root, "image", "inspect", tier.image).returncode:
        return f"the image {tier.image} is not here"
    return ""


@contextmanager
def serving(tier: Tier, model: str, root: Path, *, bundles: Path) -> Iterator[Serving]:
    raise NotImplementedError
    yield


def _docker(root: Path, *arguments: str, timeout_s: float = _ASK_S, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(  # noqa: S603  our own words
            ["docker", *arguments], cwd=root, capture_output=True, text=True, timeout=timeout_s, check=False, env={**os.environ, **(environment or {})}  # noqa: S607
        )
    except subprocess.TimeoutExpired:
        raise BackendFailed(f"docker {arguments[0]} did not end within {timeout_s:.0f} s") from None
