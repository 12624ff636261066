"""Limits the time and memory of an export that runs in its own process, and supervises it."""

from __future__ import annotations

import ctypes
import importlib.util
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
"""Default limit if the machine has enough memory: the largest example takes about 4,000."""
LEAST_MB = 64
_SHARE = 0.9
"""Of the memory of the machine or its control group; the rest is for other processes."""
_HEADROOM_MB = 4096
"""The kernel's limit also counts memory that is reserved but never used (stacks, arenas: 1.5 GB for
iris), so it is higher by this."""
_TICK_S = 0.05
"""Between two checks of the memory in use: an export can fill some 100 MB in this time."""
_GRACE_S = 10.0
"""For a process to end after Ctrl-C, before it is killed."""
_COMPILED = ("mlflow", "pandas", "skl2onnx", "sklearn")
"""The packages that take longest to compile. Each is looked for: MLflow's own commands leave the
others uncompiled."""
_FD_VARIABLE = "HALFCORE_EXPORT_STAGE_FD"
_PR_SET_PDEATHSIG = 1
_NO_LIMIT_BYTES = 1 << 60


@dataclass(frozen=True)
class ChildExit:
    """How a process ended."""

    status: int
    """As `Popen.returncode`."""
    limit_exceeded: Literal["", "memory", "time"]
    """The limit for which it was killed; empty: it was not killed here."""
    stage: str
    """The last stage that it reported."""


def interpreter() -> list[str]:
    """The command of a Python in which no module of the current folder shadows one of ours, unless
    this process was started from that folder, as with `python -m`."""
    here = sys.path[:1] in ([""], [str(Path.cwd())])
    return [sys.executable, *([] if here else ["-P"])]


def default_mb() -> int:
    """The default memory limit in MB: 90 % of what this process may use, at most `MOST_MB`."""
    return max(LEAST_MB, min(MOST_MB, usable_mb()))


def usable_mb() -> int:
    """90 % of the memory of the machine, or of the control group if that is less; in MB."""
    return int(min([_machine_bytes(), *_group_bytes()]) * _SHARE) >> 20


def _machine_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _group_bytes(
    root: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")
) -> list[int]:
    """The memory limits of this process's control group and its parents, of cgroup v1 or v2."""
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
    """Limit what this process may allocate, make it the kernel's first choice to kill when memory
    is short, and let it end with its parent.

    Args:
        megabytes: that it may use; the kernel's limit on reserved memory is higher.
        parent: process id of the supervisor.
    """
    stages.limited_to(megabytes)
    bound = (megabytes + _HEADROOM_MB) << 20
    resource.setrlimit(resource.RLIMIT_DATA, (bound, bound))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(OSError):  # some containers do not have this file
        Path("/proc/self/oom_score_adj").write_text("1000")
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit("the process that started the export has gone")
    if descriptor := os.environ.pop(_FD_VARIABLE, ""):
        stages.report_to(int(descriptor))


def _keeping_compiled() -> dict[str, str]:
    """Lets the process keep its compiled modules if there are none: many containers set
    PYTHONDONTWRITEBYTECODE, and compiling MLflow and scikit-learn again takes longer than an
    export. A folder that cannot be written to stays as it is."""
    if not sys.dont_write_bytecode:
        return {}
    specs = (importlib.util.find_spec(package) for package in _COMPILED)
    files = [Path(spec.cached) for spec in specs if spec is not None and spec.cached]
    return {} if all(file.exists() for file in files) else {"PYTHONDONTWRITEBYTECODE": ""}


class Supervised:
    """A process that is killed when it exceeds a limit."""

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
            environment: variables in addition to this process's own.
            output: file for its output, and it gets no input; default: this process's output and
                input.
            own_session: neither Ctrl-C nor the end of the terminal reaches it, and its children are
                killed with it.
        """
        self._stages, write_end = os.pipe()
        os.set_blocking(self._stages, False)
        self._received = b""
        self._own_session = own_session
        try:
            self.process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                command,
                env={
                    **os.environ,
                    **_keeping_compiled(),
                    **(environment or {}),
                    _FD_VARIABLE: str(write_end),
                },
                pass_fds=[write_end],
                stdin=subprocess.DEVNULL if output else None,
                stdout=output,
                stderr=subprocess.STDOUT if output else None,
                start_new_session=own_session,
            )
        except BaseException:
            os.close(self._stages)
            raise
        finally:
            os.close(write_end)

    def wait(
        self, limit_mb: int, limit_s: float = float("inf"), tick: Callable[[], None] = lambda: None
    ) -> ChildExit:
        """Wait for its end; kill it when it exceeds a limit.

        Args:
            limit_mb: of resident memory, its child processes included.
            limit_s: from now on.
            tick: called several times a second; an exception in it kills the process.
        """
        deadline = time.monotonic() + limit_s
        try:
            limit_exceeded = self._watch(limit_mb, deadline, tick)
        except KeyboardInterrupt:
            if not self._own_session:  # Ctrl-C reached the process too: let it clean up
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
                os.killpg(self.process.pid, signal.SIGKILL)  # its children may outlive it
            else:
                self.process.kill()

    def _listen(self) -> None:
        with suppress(BlockingIOError):
            while some := os.read(self._stages, 1 << 16):
                self._received = (self._received + some)[-(1 << 16) :]

    def _stage(self) -> str:
        return (self._received.decode(errors="replace").splitlines() or [""])[-1]


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
        with suppress(OSError):  # the thread has ended, or this kernel has no such file
            found += map(int, (thread / "children").read_text().split())
    return found


def killed_message(ended: ChildExit, limit_mb: int) -> str:
    """The error text for a process that ended by a signal from elsewhere."""
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
        "process; register it again, trained with the installed versions of its libraries"
    )
