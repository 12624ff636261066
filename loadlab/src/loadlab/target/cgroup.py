"""Control groups made by hand: a process in its own limits, and what it used.

Theory of operation: `group` makes a directory under a parent of ours, writes the limits, and
removes it at the end, whatever happened; it never touches a group that it did not make.
`Group.wrap` gives a command that joins the group first and then becomes the process, so that not
one instruction of it runs outside. `Usage` and `Memory` are the kernel's own counts, of all
processes in the group together.

Source: the kernel's Documentation/admin-guide/cgroup-v1 and cgroup-v2.rst. Version 1 does not count
socket buffers as memory, version 2 does: the same memory limit is stricter there.
"""

import itertools
import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from loadlab.record.limits import Limits, Memory, Usage

ROOT = Path("/sys/fs/cgroup")
PARENT = "halfcore-lab"
"""Our parent group; all groups of the lab are its children."""

_CONTROLLERS = ("cpu", "cpuacct", "memory")
"""Of version 1."""
_KINDS_1 = ("rss", "cache", "mapped_file", "shmem")
_KINDS_2 = ("anon", "file", "kernel", "sock", "shmem", "slab", "kernel_stack", "pagetables")
"""Of memory, in either version's memory.stat."""
_NS, _US = 1e9, 1e6
_UNLIMITED = 1 << 60
_REMOVE_TIMEOUT_S = 10.0
_JOIN = 'while [ "$1" != -- ]; do echo $$ > "$1" || exit 126; shift; done; shift; exec "$@"'
"""Write the shell's own id into each file, then become the command: same id, nothing forked."""

_numbers = itertools.count(1)


class Unavailable(RuntimeError):
    """Control groups cannot be made here; the message is the reason."""


@dataclass(frozen=True)
class Group:
    """One control group: version 1 has a folder of it per controller, version 2 one for all."""

    name: str
    version: int
    root: Path = ROOT
    parent: str = PARENT
    """Empty: the name is the path from the root, as a container engine chose it."""

    def folders(self) -> list[Path]:
        """Where its files are, each folder once."""
        return list(dict.fromkeys(self._file(controller) for controller in _CONTROLLERS))

    def wrap(self, command: Sequence[str]) -> list[str]:
        """The command that joins this group and then executes `command` under the same process
        id."""
        files = [str(folder / "cgroup.procs") for folder in self.folders()]
        return ["/bin/sh", "-c", _JOIN, "join", *files, "--", *command]

    def processes(self) -> list[int]:
        """Ids of the processes inside."""
        return [int(pid) for pid in self._file("cpu", "cgroup.procs").read_text().split()]

    def limits(self) -> Limits:
        """Limits in force, as the kernel says them; without a quota neither period nor burst."""
        if self.version == 1:
            names = "cpu.cfs_quota_us", "cpu.cfs_period_us"
            quota, period = (self._file("cpu", name).read_text() for name in names)
        else:
            quota, period = self._file("cpu", "cpu.max").read_text().split()
        quota_us = _limit(quota)
        memory_bytes = _limit(
            self._file("memory", "memory.limit_in_bytes", "memory.max").read_text()
        )
        if quota_us is None:
            return Limits(memory_bytes=memory_bytes)
        return Limits(
            cpus=quota_us / int(period),
            memory_bytes=memory_bytes,
            period_us=int(period),
            burst_us=_number(self._burst),
        )

    def usage(self) -> Usage:
        """CPU time and throttling since the group was made: version 1 counts nanoseconds, version 2
        microseconds."""
        stat = _pairs(self._file("cpu", "cpu.stat"))
        if self.version == 1:
            names = ("cpuacct.usage", "cpuacct.usage_user", "cpuacct.usage_sys")
            used = [int(self._file("cpuacct", name).read_text()) / _NS for name in names]
            throttled_s = stat.get("throttled_time", 0) / _NS
        else:
            used = [stat[name] / _US for name in ("usage_usec", "user_usec", "system_usec")]
            throttled_s = stat.get("throttled_usec", 0) / _US
        return Usage(
            cpu_s=used[0],
            user_s=used[1],
            system_s=used[2],
            periods=stat.get("nr_periods", 0),
            throttled_periods=stat.get("nr_throttled", 0),
            throttled_s=throttled_s,
        )

    def memory(self) -> Memory:
        """Memory now, at its peak, and by kind."""
        stat = _pairs(self._file("memory", "memory.stat"))
        events = _pairs(self._file("memory", "memory.oom_control", "memory.events"))
        current = _number(self._file("memory", "memory.usage_in_bytes", "memory.current"))
        peak = _number(self._file("memory", "memory.max_usage_in_bytes", "memory.peak"))
        kinds = _KINDS_1 if self.version == 1 else _KINDS_2
        found = {kind: stat[kind] for kind in kinds if kind in stat}
        if self.version == 1:
            found["kernel"] = _number(self._file("memory", "memory.kmem.usage_in_bytes"))
            found["tcp"] = _number(self._file("memory", "memory.kmem.tcp.usage_in_bytes"))
            events["max"] = _number(self._file("memory", "memory.failcnt"))
        return Memory(
            current_bytes=current,
            peak_bytes=peak or current,  # version 2 has it since kernel 5.19
            kinds=found,
            limit_hits=events.get("max", 0),
            oom_kills=events.get("oom_kill", 0),
        )

    def create(self, limits: Limits) -> None:
        """Make the group with its limits; raises `Unavailable`."""
        if self.version != 1:
            _delegate(self.root)
            _make(self.root / self.parent)
            _delegate(self.root / self.parent)
        for folder in self.folders():
            _make(folder)
        if limits.quota_us is not None and self.version == 1:
            _write(self._file("cpu", "cpu.cfs_period_us"), limits.period_us)
            _write(self._file("cpu", "cpu.cfs_quota_us"), limits.quota_us)
        elif limits.quota_us is not None:
            _write(self._file("cpu", "cpu.max"), f"{limits.quota_us} {limits.period_us}")
        if limits.quota_us is not None and limits.burst_us:
            if not self._burst.exists():  # since 5.14, where the kernel was built with it
                lacks = f"{self._burst.name} is missing"
                raise Unavailable(f"this kernel has no quota that can be saved up: {lacks}")
            _write(self._burst, limits.burst_us)
        if limits.memory_bytes is not None:
            _write(self._file("memory", "memory.limit_in_bytes", "memory.max"), limits.memory_bytes)
            swap = self._file("memory", "memory.memsw.limit_in_bytes", "memory.swap.max")
            with suppress(Unavailable):  # no swap accounting: then there is no swap to limit either
                # Version 1 limits memory and swap together
                _write(swap, limits.memory_bytes if self.version == 1 else 0)

    def remove(self) -> None:
        """Kill what is still inside (only what we started can be there), then remove the group, and
        our parent if it is empty too."""
        deadline = time.monotonic() + _REMOVE_TIMEOUT_S
        with suppress(FileNotFoundError):
            while (left := self.processes()) and time.monotonic() < deadline:
                for pid in left:
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                time.sleep(0.01)
        for folder in self.folders():
            _remove(folder)

    def _file(self, controller: str, *names: str) -> Path:
        """A controller's file, under its name in version 1 and, where it differs, in version 2."""
        top = self.root / controller if self.version == 1 else self.root
        return top.joinpath(self.parent, self.name, *names[:1] if self.version == 1 else names[-1:])

    @property
    def _burst(self) -> Path:
        return self._file("cpu", "cpu.cfs_burst_us", "cpu.max.burst")


def version(root: Path = ROOT) -> int:
    """1 or 2, where this process may make groups; raises `Unavailable` with the reason."""
    if not root.is_dir():
        raise Unavailable(
            f"no control groups: {root} does not exist (Linux only; inside a container mount it)"
        )
    if os.geteuid() != 0:
        raise Unavailable("making control groups needs root: run as root, or use containers")
    if (root / "cgroup.controllers").exists():
        return 2
    if all((root / controller).is_dir() for controller in _CONTROLLERS):
        return 1
    raise Unavailable(
        f"{root} has neither version 2 nor the version 1 controllers {', '.join(_CONTROLLERS)}"
    )


def find(name: str, root: Path = ROOT) -> Group:
    """An existing group, to read from another process; raises `Unavailable` if there is none."""
    found = Group(name, version(root), root)
    if not found.folders()[0].exists():
        raise Unavailable(f"no control group {PARENT}/{name}")
    return found


def of_process(pid: int, root: Path = ROOT) -> Group:
    """The group that a container engine put a process into, to read; raises
    `Unavailable`."""
    try:
        lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    except OSError:
        raise Unavailable(f"process {pid} is gone") from None
    paths = {
        controller: path.strip("/")
        for _, controllers, path in (line.split(":", 2) for line in lines)
        for controller in controllers.split(",")
    }
    if (root / "cgroup.controllers").exists():
        return Group(paths[""], 2, root, "")
    if "cpuacct" not in paths:
        raise Unavailable(f"process {pid} is in no control group that counts CPU time")
    return Group(paths["cpuacct"], 1, root, "")


@contextmanager
def group(label: str, limits: Limits | None = None, root: Path = ROOT) -> Iterator[Group]:
    """Make a group, and remove it with every process that is still inside.

    Args:
        label: part of its name; letters, digits and hyphens.
        limits: none by default: then the group only counts.
        root: where the control groups are mounted.

    Raises:
        Unavailable: not root, no control groups, or the kernel refused; says which.
    """
    made = Group(f"{os.getpid()}-{next(_numbers)}-{label}", version(root), root)
    try:
        made.create(limits or Limits())
        yield made
    finally:
        made.remove()


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


def _remove(folder: Path) -> None:
    for _ in range(100):
        try:
            folder.rmdir()
        except FileNotFoundError:
            break
        except OSError:  # a process that was killed has not left yet
            time.sleep(0.01)
            continue
        break
    with suppress(OSError):  # another run of the lab has a group there
        folder.parent.rmdir()


def _limit(text: str) -> int | None:
    """No limit is written as max, as -1, or as a number near 2^63."""
    limited = text.strip() != "max" and 0 <= int(text) < _UNLIMITED
    return int(text) if limited else None


def _number(file: Path) -> int:
    try:
        return int(file.read_text())
    except FileNotFoundError:  # a kernel built without it
        return 0


def _pairs(file: Path) -> dict[str, int]:
    return {
        key: int(value) for key, value in (line.split() for line in file.read_text().splitlines())
    }
