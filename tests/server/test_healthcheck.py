"""What a container's health check says of a server."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.bundles import write_bundle
from support.serving import free_port, serving


def check(port: int, host: str = "127.0.0.1") -> subprocess.CompletedProcess[str]:
    """The health check as a container runs it, with the server's own variables."""
    environment = {"PATH": os.environ["PATH"], "HALFCORE_PORT": str(port), "HALFCORE_HOST": host}
    command = [sys.executable, "-I", "-m", "halfcore.healthcheck"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=90)


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])  # noqa: S104  nobody listens there
def test_a_ready_server_is_healthy(tmp_path: Path, host: str) -> None:
    """Also where the server listens on every address."""
    write_bundle(tmp_path)
    with serving(tmp_path, host=host) as server:
        assert check(server.port, host).returncode == 0


def test_a_server_that_is_not_ready_is_not_healthy(tmp_path: Path) -> None:
    """Alive, but without its default model."""
    write_bundle(tmp_path, "numbers")
    with serving(tmp_path, path="/health/live", default_model="absent") as server:
        assert check(server.port).returncode == 1


def test_nobody_is_not_healthy() -> None:
    """A refused connection is a sentence and exit code 1, not a traceback."""
    result = check(free_port())
    assert result.returncode == 1
    assert "refused" in result.stderr
    assert "Traceback" not in result.stderr


def test_it_imports_next_to_nothing() -> None:
    """On a tenth of a core each import is felt by the server beside it."""
    code = "import sys, halfcore.healthcheck; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"asyncio", "http", "email", "ssl", "logging", "litestar", "numpy"} & set(modules)
