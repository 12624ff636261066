"""A server as a real process, in a control group of its own with its limits, on the CPUs that it is
given. What it used is read by `loadlab.record.cgroup`."""

import http.client
import itertools
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

from loadlab.record import cgroup
from loadlab.record.cgroup import Group, Limits, Unavailable, Ungrouped

NO_ANSWER = (OSError, http.client.HTTPException)
"""What `get` raises."""
_POLL_S = 0.05
_ASK_S = 5.0
_STOP_TIMEOUT_S = 10.0
_LAST_WORDS, _LAST_LINES = 2000, 3
"""Characters and lines of a server's output that are quoted when it fails."""
_numbers = itertools.count(1)


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
    group: Group
    output: int
    """Open file of what it says."""

    def ended(self, what: str) -> str:
        """With which exit code and last words `what` ended, or nothing."""
        code = self.process.poll()
        return "" if code is None else f"{what} ended with {code}: {self.last_words()}"

    def last_words(self) -> str:
        """Its last lines, and whether memory ran out."""
        start = max(os.fstat(self.output).st_size - _LAST_WORDS, 0)
        text = os.pread(self.output, _LAST_WORDS, start).decode(errors="replace")
        lines = [line.strip() for line in text.splitlines() if line.strip(" ^")]
        said, memory = " | ".join(lines[-_LAST_LINES:]) or "no output", self.group.memory()
        if not memory.oom_kills:
            return said
        kills = f"{memory.oom_kills} kills, limit hit {memory.limit_hits} times"
        return f"{said} (out of memory: {kills})"

    def ready(self, path: str) -> bool:
        """Whether `path` answers 200, or without a path whether a connection is taken; raises
        `NO_ANSWER`."""
        if path:
            return get("127.0.0.1", self.port, path)[0] == HTTPStatus.OK
        socket.create_connection(("127.0.0.1", self.port), timeout=_ASK_S).close()
        return True


@contextmanager
def running(
    label: str,
    command: Command,
    *,
    port: int,
    limits: Limits | None,
    cpus: str = "",
    ready_timeout_s: float = 60.0,
) -> Iterator[Running]:
    """Start a server, yield when it is ready, and end it with everything it started.

    Args:
        label: names its control group.
        command: is to listen on `port` of 127.0.0.1, a free one (`free_port`).
        limits: of its control group; None: it gets no group, and no root is needed.
        cpus: CPUs it may run on, as `taskset` takes them; empty: all.

    Raises:
        CannotStart: it ended, or was not ready in time.
        Unavailable: no control group can be made.
    """
    grouped = nullcontext() if limits is None else control_group(label, limits)
    with grouped as group, tempfile.TemporaryFile() as output:
        words = [*(["taskset", "--cpu-list", cpus] if cpus else []), *command.arguments]
        process = subprocess.Popen(  # noqa: S603  commands of the lab
            group.wrap(words) if group else words,
            env=dict(command.environment),
            cwd=command.folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        found = group or Ungrouped(label, 0, pid=process.pid)
        server = Running(process, port, found, output.fileno())
        try:
            reason = await_ready(
                lambda: server.ready(command.ready_path),
                lambda: "" if process.poll() is None else f"ended with {process.returncode}",
                timeout_s=ready_timeout_s,
            )
            if reason:
                raise CannotStart(f"{reason}: {server.last_words()}")
            yield server
        finally:
            process.terminate()
            try:
                process.wait(_STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if not group:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)  # what it has left behind


def await_ready(ready: Callable[[], bool], ended: Callable[[], str], *, timeout_s: float) -> str:
    """Ask until the server is ready; returns why it is not, or nothing."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if why := ended():
            return why
        with suppress(*NO_ANSWER):
            if ready():
                return ""
        time.sleep(_POLL_S)
    return f"not ready after {timeout_s:.0f} s"


def get(host: str, port: int, path: str) -> tuple[int, bytes]:
    """Status and body of one request on its own connection; raises `NO_ANSWER`."""
    connection = http.client.HTTPConnection(host, port, timeout=_ASK_S)
    try:
        connection.request("GET", path, headers={"connection": "close"})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def free_port() -> int:
    """A loopback port that is free at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def control_group(label: str, limits: Limits | None = None) -> Iterator[Group]:
    """Make a group, and remove it with every process that is still inside, whatever happened; no
    group is touched that was not made here.

    Its name ends with `label`: letters, digits and hyphens. Without limits it only counts. Raises
    `Unavailable`: not root, no control groups, or the kernel refused; says which.
    """
    made = Group(f"{os.getpid()}-{next(_numbers)}-{label}", cgroup.version())
    try:
        create_group(made, limits or Limits())
        yield made
    finally:
        _remove(made)


def try_groups() -> int:
    """Make a group with limits, read them back and remove it; returns the version of control
    groups. Raises `Unavailable`."""
    asked = Limits(cpus=0.5, memory_bytes=1 << 26)
    with control_group("probe", asked) as group:
        if (found := group.limits()) != asked:
            raise Unavailable(f"control groups do not keep their limits: {asked} became {found}")
        return group.version


def create_group(group: Group, limits: Limits) -> None:
    """Make the group with its limits; raises `Unavailable`."""
    if group.version != 1:
        _delegate(group.root)
        _make(group.root / group.parent)
        _delegate(group.root / group.parent)
    for folder in group.folders():
        _make(folder)
    if limits.quota_us is not None:
        _limit_cpu(group, limits, limits.quota_us)
    if limits.memory_bytes is not None:
        _write(group.file("memory", "memory.limit_in_bytes", "memory.max"), limits.memory_bytes)
        swap = group.file("memory", "memory.memsw.limit_in_bytes", "memory.swap.max")
        with suppress(Unavailable):  # no swap accounting: then there is no swap to limit either
            # Version 1 limits memory and swap together
            _write(swap, limits.memory_bytes if group.version == 1 else 0)


def _limit_cpu(group: Group, limits: Limits, quota_us: int) -> None:
    if group.version == 1:
        _write(group.file("cpu", "cpu.cfs_period_us"), limits.period_us)
        _write(group.file("cpu", "cpu.cfs_quota_us"), quota_us)
    else:
        _write(group.file("cpu", "cpu.max"), f"{quota_us} {limits.period_us}")
    if limits.burst_us:
        if not group.burst.exists():  # since 5.14, where the kernel was built with it
            lacks = f"{group.burst.name} is missing"
            raise Unavailable(f"this kernel has no quota that can be saved up: {lacks}")
        _write(group.burst, limits.burst_us)


def _remove(group: Group) -> None:
    """Kill what is still inside (only what we started can be there), then remove the group, and
    our parent if it is empty too."""
    deadline = time.monotonic() + _STOP_TIMEOUT_S
    for folder in group.folders():
        while folder.exists() and time.monotonic() < deadline:
            for pid in (folder / "cgroup.procs").read_text().split():
                with suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
            try:
                folder.rmdir()
            except OSError:  # a process that was killed has not left yet
                time.sleep(0.01)
        with suppress(OSError):  # another run of the lab has a group there
            folder.parent.rmdir()


def _delegate(folder: Path) -> None:
    """Let a folder's children have the CPU and memory controllers; nothing is written where they
    have."""
    file = folder / "cgroup.subtree_control"
    switched_on = file.read_text().split()
    if missing := [f"+{each}" for each in ("cpu", "memory") if each not in switched_on]:
        _write(file, " ".join(missing))


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Unavailable(f"cannot make the control group {folder}: {error.strerror}") from None


def _write(file: Path, value: object) -> None:
    try:
        file.write_text(str(value))
    except OSError as error:
        raise Unavailable(f"cannot write {value} to {file}: {error.strerror}") from None
