"""Bounds of time and memory for an export that runs in a process of its own, and the process that
watches over it."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Literal

from model_export import stages

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MOST_MB = 6144
"""Default limit where the machine has enough: the largest example takes about 4,000."""
LEAST_MB = 64
_SHARE = 0.9
"""Of the memory of the machine or its control group; the rest is for whatever else runs there."""
_HEADROOM_MB = 4096
"""The kernel's bound counts what is reserved and never used, too (stacks, arenas: 1.5 GB for iris),
so it stands higher by this."""
_TICK_S = 0.05
"""Between two looks at the memory in use: an export can fill some 100 MB meanwhile."""
_GRACE_S = 10.0
"""For a process that Ctrl-C ends, before it is killed."""
_FD_VARIABLE = "HALFCORE_EXPORT_STAGE_FD"
_PR_SET_PDEATHSIG = 1
_NO_LIMIT_BYTES = 1 << 60


@dataclass(frozen=True)
class ChildExit:
    """How a process ended."""

    status: int
    """As `Popen.returncode`."""
    limit_exceeded: Literal["", "memory", "time"]
    """Of what it needed more than it may; it was killed for that."""
    stage: str
    """What it did last."""


def default_mb() -> int:
    """The memory limit in MB where none is given: 90 % of what this process may use at all, at most
    `MOST_MB`."""
    return max(LEAST_MB, min(MOST_MB, usable_mb()))


def usable_mb() -> int:
    """90 % of the memory of the machine, or of the control group where that is less; in MB."""
    return int(min([_machine_bytes(), *_group_bytes()]) * _SHARE) >> 20


def _machine_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _group_bytes(
    root: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")
) -> list[int]:
    """The limits of this process's control group and of those around it, of either version."""
    limits = []
    with suppress(OSError):
        for line in membership.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers in ("", "memory"):
                base, name = (
                    (root, "memory.max")
                    if not controllers
                    else (root / "memory", "memory.limit_in_bytes")
                )
                inner = Path(path.lstrip("/"))
                for folder in (inner, *inner.parents):
                    with suppress(OSError, ValueError):  # the root has no limit, or it says "max"
                        limits.append(int((base / folder / name).read_text()))
    return [limit for limit in limits if limit < _NO_LIMIT_BYTES]


def restrict(megabytes: int, parent: int) -> None:
    """Bound what this process may allocate, be the first whom the kernel ends when memory is short,
    and end with the parent.

    Args:
        megabytes: that it may use; the bound on what is reserved stands higher.
        parent: process id of whoever watches over this one.
    """
    stages.limited_to(megabytes)
    bound = (megabytes + _HEADROOM_MB) << 20
    resource.setrlimit(resource.RLIMIT_DATA, (bound, bound))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(OSError):  # not every container has it
        Path("/proc/self/oom_score_adj").write_text("1000")
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit("the process that started the export has gone")
    if descriptor := os.environ.pop(_FD_VARIABLE, ""):
        stages.report_to(int(descriptor))


class Supervised:
    """A process that is killed when it needs too much."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        environment: dict[str, str] | None = None,
        output: IO[bytes] | None = None,
        own_session: bool = False,
    ) -> None:
        """Start it.

        Args:
            command: program and arguments; the program calls `restrict` first.
            environment: variables besides this process's own.
            output: where its output goes; default: where this process's goes. With it, it has no
                input.
            own_session: neither Ctrl-C nor the terminal's end reaches it, and everything that it
                starts is killed with it.
        """
        self._stages, theirs = os.pipe()
        os.set_blocking(self._stages, False)
        self._said = b""
        self._own_session = own_session
        variables = {**os.environ, **(environment or {}), _FD_VARIABLE: str(theirs)}
        try:
            self.process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                command,
                env=variables,
                pass_fds=[theirs],
                stdin=subprocess.DEVNULL if output else None,
                stdout=output,
                stderr=subprocess.STDOUT if output else None,
                start_new_session=own_session,
            )
        except BaseException:
            os.close(self._stages)
            raise
        finally:
            os.close(theirs)

    def wait(
        self, limit_mb: int, limit_s: float = float("inf"), tick: Callable[[], None] = lambda: None
    ) -> ChildExit:
        """Wait for its end; kill it when it has needed too much.

        Args:
            limit_mb: of resident memory, its child processes included.
            limit_s: from now on.
            tick: called some times a second; what it raises kills the process.
        """
        deadline = time.monotonic() + limit_s
        try:
            limit_exceeded = self._watch(limit_mb, deadline, tick)
        except KeyboardInterrupt:
            if not self._own_session:  # Ctrl-C reached it as well: let it clean up
                with suppress(subprocess.TimeoutExpired):
                    self.process.wait(_GRACE_S)
            raise
        finally:
            self._kill()
            self.process.wait()
            self._listen()
            os.close(self._stages)
        return ChildExit(self.process.returncode, limit_exceeded, self._stage())

    def _watch(
        self, limit_mb: int, deadline: float, tick: Callable[[], None]
    ) -> Literal["", "memory", "time"]:
        while time.monotonic() < deadline:
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(_TICK_S)
                return ""
            if resident_mb(self.process.pid) > limit_mb:
                return "memory"
            self._listen()
            tick()
        return "time"

    def _kill(self) -> None:
        with suppress(ProcessLookupError):
            if self._own_session:
                os.killpg(self.process.pid, signal.SIGKILL)  # what it has started may outlive it
            else:
                self.process.kill()

    def _listen(self) -> None:
        with suppress(BlockingIOError):
            while some := os.read(self._stages, 1 << 16):
                self._said = (self._said + some)[-(1 << 16) :]

    def _stage(self) -> str:
        return (self._said.decode(errors="replace").splitlines() or [""])[-1]


def resident_mb(pid: int) -> float:
    """Memory in use by a process and its children."""
    with suppress(OSError):
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20) + sum(
            resident_mb(child) for child in _children(pid)
        )
    return 0.0


def _children(pid: int) -> list[int]:
    found: list[int] = []
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with suppress(OSError):  # the thread has ended, or this kernel does not say
            found += map(int, (thread / "children").read_text().split())
    return found


def killed_message(ended: ChildExit, limit_mb: int) -> str:
    """The sentence for a process that a signal ended which nobody here has sent."""
    name = signal.Signals(-ended.status).name
    at = f" ({ended.stage})" if ended.stage else ""
    if ended.status == -signal.SIGKILL:
        return (
            f"the export was ended by {name}{at}: most likely the machine or its control group "
            "had no memory left "
            f"before the limit of {limit_mb:,} MB was reached; free some, or use a machine with "
            "more"
        )
    return (
        f"the export was ended by {name}{at}: the model, or a library that runs it, crashed the "
        "process"
    )
