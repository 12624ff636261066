"""What the backends ask of Docker's command line."""

import json
import os
import subprocess
from pathlib import Path
from typing import NamedTuple

from loadlab.backends.serving import BackendFailed

ASK_S = 20
"""Seconds for a question."""


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
        told = json.loads(docker(root, "inspect", container).stdout)[0]
        address = next(iter(told["NetworkSettings"]["Networks"].values()))["IPAddress"]
        return cls(root, container, told["State"]["Pid"], address, told["Image"])

    def ended(self) -> str:
        """Why it is no more, or nothing: its first process is gone, even if the engine has started another."""
        if Path(f"/proc/{self.pid}").exists():
            return ""
        told = json.loads(docker(self.root, "inspect", self.id).stdout or "[{}]")[0].get("State", {})
        why = "out of memory" if told.get("OOMKilled") else f"exit code {told.get('ExitCode')}"
        return f"the container {self.id[:12]} ended: {why}"


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
