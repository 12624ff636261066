"""What the backends ask of Docker's command line."""

import json
import os
import resource
import shutil
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from loadlab.generator.http import ask
from loadlab.target.process import CannotStart
from loadlab.target.serving import BackendFailed

ASK_S = 20
"""Seconds for a question."""
_POLL_S = 0.1
_NOFILE = 65536


class Container(NamedTuple):
    """A container that runs, and its first process."""

    root: Path
    id: str
    pid: int
    address: str
    image: str

    @classmethod
    def of(cls, root: Path, container: str) -> "Container":
        """Ask the engine."""
        found = json.loads(docker(root, "inspect", container).stdout)[0]
        address = next(iter(found["NetworkSettings"]["Networks"].values()))["IPAddress"]
        return cls(root, container, found["State"]["Pid"], address, found["Image"])

    def ended(self) -> str:
        """Why it is no more, or nothing: its first process is gone, even if the engine has started
        another."""
        if Path(f"/proc/{self.pid}").exists():
            return ""
        state = json.loads(docker(self.root, "inspect", self.id).stdout or "[{}]")[0].get(
            "State", {}
        )
        why = "out of memory" if state.get("OOMKilled") else f"exit code {state.get('ExitCode')}"
        return f"the container {self.id[:12]} ended: {why}"


def no_container(root: Path, image: str) -> str:
    """Why there can be no container of an image here, or nothing."""
    if not shutil.which("docker"):
        return "docker is not installed"
    if docker(root, "info", "--format", "{{.ServerVersion}}").returncode:
        return "the Docker engine does not answer"
    if docker(root, "image", "inspect", image).returncode:
        return f"the image {image} is not here"
    return ""


def open_files() -> int:
    """As many as a container's processes may have: no more than may be had here."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return _NOFILE if hard == resource.RLIM_INFINITY else min(hard, _NOFILE)


def await_answer(
    container: Container,
    port: int,
    path: str,
    *,
    good: Callable[[int], bool],
    ready_s: float,
    said: Callable[[], str],
) -> None:
    """Ask until the status is good.

    Raises:
        CannotStart: the container ended, or was not ready within `ready_s`; quotes `said()`.
    """
    request = (
        f"GET {path} HTTP/1.1\r\nhost: {container.address}\r\nconnection: close\r\n\r\n".encode()
    )
    deadline = time.monotonic() + ready_s
    while time.monotonic() < deadline:
        if why := container.ended():
            raise CannotStart(f"{why}{said()}")
        with suppress(OSError, ValueError):
            if good(ask(container.address, port, request, timeout_s=5.0)[0]):
                return
        time.sleep(_POLL_S)
    raise CannotStart(f"not ready after {ready_s:.0f} s{said()}")


def last_line(text: str) -> str:
    """What a program said last."""
    return (text.strip().splitlines() or ["no output"])[-1].strip()


def docker(
    root: Path, *arguments: str, timeout_s: float = ASK_S, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `docker …`; raises `BackendFailed` if it does not end in time."""
    try:
        return subprocess.run(  # noqa: S603  our own words
            ["docker", *arguments],  # noqa: S607
            cwd=root,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
            env={**os.environ, **(environment or {})},
        )
    except subprocess.TimeoutExpired:
        raise BackendFailed(f"docker {arguments[0]} did not end within {timeout_s:.0f} s") from None
