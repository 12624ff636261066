"""A server as a real process, in its own control group, on the CPUs that it is given."""

import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from loadlab.generator.http import ask
from loadlab.target import cgroup

_POLL_S = 0.05
_STOP_TIMEOUT_S = 10.0
_LAST_WORDS, _LAST_LINES = 2000, 3
"""Characters and lines of a server's output that are quoted when it fails."""


class CannotStart(RuntimeError):
    """The server did not become ready in its limits; the message says how it ended. A result, not
    an error of the lab."""


@dataclass(frozen=True)
class Command:
    """How to start a server."""

    arguments: Sequence[str]
    environment: Mapping[str, str]
    folder: Path
    ready_path: str = "/"
    """Answers 200 once the server is ready; empty: it is ready once it takes connections."""


@dataclass(frozen=True)
class Running:
    """A server that is ready."""

    process: subprocess.Popen[bytes]
    port: int
    group: cgroup.Group
    output: int = -1
    """Open file of what it says."""

    def last_words(self) -> str:
        """Its last lines, and whether memory ran out."""
        return f"{_last_words(self.output)}{_killed(self.group)}"


@contextmanager
def running(
    label: str,
    command: Command,
    *,
    port: int,
    limits: cgroup.Limits,
    cpus: str = "",
    ready_timeout_s: float = 60.0,
) -> Iterator[Running]:
    """Start a server, yield when it is ready, and end it with everything it started.

    Args:
        label: names its control group.
        command: is to listen on `port` of 127.0.0.1.
        port: a free one; see `free_port`.
        limits: of its control group.
        cpus: CPUs it may run on, as `taskset` takes them; empty: all.
        ready_timeout_s: seconds until it must be ready.

    Raises:
        CannotStart: it ended, or was not ready in time.
        cgroup.Unavailable: no control group can be made.
    """
    with cgroup.group(label, limits) as group, tempfile.TemporaryFile() as output:
        pinned = ["taskset", "--cpu-list", cpus] if cpus else []
        process = subprocess.Popen(  # noqa: S603  commands of the lab
            group.wrap([*pinned, *command.arguments]),
            env=dict(command.environment),
            cwd=command.folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        try:
            server = Running(process, port, group, output.fileno())
            reason = _await_ready(server, command.ready_path, ready_timeout_s)
            if reason:
                raise CannotStart(f"{reason}{_killed(group)}: {_last_words(output.fileno())}")
            yield server
        finally:
            _stop(process)


def free_port() -> int:
    """A loopback port that is free at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _await_ready(server: Running, path: str, timeout_s: float) -> str:
    """Wait until `path` answers 200, or without a path until a connection is taken; returns why it
    did not, or nothing."""
    head = f"host: 127.0.0.1:{server.port}\r\nconnection: close"
    request = f"GET {path} HTTP/1.1\r\n{head}\r\n\r\n".encode()
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if server.process.poll() is not None:
            return f"ended with {server.process.returncode}"
        try:
            if not path:
                socket.create_connection(("127.0.0.1", server.port), timeout=5.0).close()
                return ""
            if ask("127.0.0.1", server.port, request, timeout_s=5.0)[0] == 200:
                return ""
        except (OSError, ValueError):
            pass
        time.sleep(_POLL_S)
    return f"not ready after {timeout_s:.0f} s"


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(_STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _killed(group: cgroup.Group) -> str:
    memory = group.memory()
    return (
        f" (out of memory: {memory.oom_kills} kills, limit hit {memory.limit_hits} times)"
        if memory.oom_kills
        else ""
    )


def _last_words(output: int) -> str:
    size = os.fstat(output).st_size
    text = os.pread(output, _LAST_WORDS, max(size - _LAST_WORDS, 0)).decode(errors="replace")
    lines = [line.strip() for line in text.splitlines() if line.strip(" ^")]
    return " | ".join(lines[-_LAST_LINES:]) or "no output"
