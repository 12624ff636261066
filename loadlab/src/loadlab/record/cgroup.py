"""Control groups, read: limits in force and what was used, as the kernel counts it, of all
processes in a group together. `loadlab.target.process` makes groups.

Source: the kernel's Documentation/admin-guide/cgroup-v1 and cgroup-v2.rst. Version 1 does not count
socket buffers as memory, version 2 does: the same memory limit is stricter there.
"""

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec
import psutil

ROOT = Path("/sys/fs/cgroup")
PARENT = "halfcore-lab"
"""Our parent group; all groups of the lab are its children."""
PERIOD_US = 100_000
"""The quota's period, microseconds: Docker's and Kubernetes's default, so that a limit here is the
limit that users know."""

_CONTROLLERS = ("cpu", "cpuacct", "memory")
"""Of version 1."""
_KINDS_1 = ("rss", "cache", "mapped_file", "shmem")
_KINDS_2 = ("anon", "file", "kernel", "sock", "shmem", "slab", "kernel_stack", "pagetables")
"""Of memory, in either version's memory.stat."""
_NS, _US = 1e9, 1e6
_UNLIMITED = 1 << 60
_JOIN = 'while [ "$1" != -- ]; do echo $$ > "$1" || exit 126; shift; done; shift; exec "$@"'
"""Write the shell's own id into each file, then become the command: same id, nothing forked."""


class Unavailable(RuntimeError):
    """Control groups cannot be made here; the message is the reason."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What a group may use; None is without limit."""

    cpus: float | None = None
    """Cores' worth of CPU time per period: 0.5 is 50 ms in every 100 ms."""
    memory_bytes: int | None = None
    period_us: int = PERIOD_US
    """Of the quota: a short period stops the group for a shorter time, and more often."""
    burst_us: int = 0
    """CPU time that a group may save up while it is idle and use beyond one period's quota later;
    at most the quota."""

    @property
    def quota_us(self) -> int | None:
        """CPU time in each period."""
        return None if self.cpus is None else round(self.cpus * self.period_us)


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """CPU time in seconds since the group was made, and how often the quota stopped it."""

    cpu_s: float
    periods: int = 0
    throttled_periods: int = 0

    def since(self, before: "Usage") -> "Usage":
        """What was used between two readings."""
        names = self.__struct_fields__
        return Usage(**{name: getattr(self, name) - getattr(before, name) for name in names})


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """Memory in bytes. `kinds` are the kernel's names; which there are depends on the version."""

    current_bytes: int
    peak_bytes: int
    kinds: dict[str, int]
    limit_hits: int = 0
    """How often a charge met the limit; version 1 of kernel 6.18 was seen not to count."""
    oom_kills: int = 0


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
        return list(dict.fromkeys(self.file(controller) for controller in _CONTROLLERS))

    def wrap(self, command: Sequence[str]) -> list[str]:
        """The command that joins this group first and then becomes `command`, under the same
        process id: not one instruction of it runs outside."""
        files = [str(folder / "cgroup.procs") for folder in self.folders()]
        return ["/bin/sh", "-c", _JOIN, "join", *files, "--", *command]

    def processes(self) -> list[int]:
        """Ids of the processes inside."""
        return [int(pid) for pid in self.file("cpu", "cgroup.procs").read_text().split()]

    def limits(self) -> Limits:
        """Limits in force, as the kernel says them; without a quota neither period nor burst."""
        names = ("cpu.cfs_quota_us", "cpu.cfs_period_us") if self.version == 1 else ("cpu.max",)
        quota, period = " ".join(self.file("cpu", name).read_text() for name in names).split()
        most = self.file("memory", "memory.limit_in_bytes", "memory.max").read_text()
        quota_us, memory_bytes = _limit(quota), _limit(most)
        if quota_us is None:
            return Limits(memory_bytes=memory_bytes)
        return Limits(
            cpus=quota_us / int(period),
            memory_bytes=memory_bytes,
            period_us=int(period),
            burst_us=_number(self.burst),
        )

    def usage(self) -> Usage:
        """CPU time and throttling since the group was made: version 1 counts nanoseconds, version 2
        microseconds."""
        stat = _pairs(self.file("cpu", "cpu.stat"))
        if self.version == 1:
            cpu_s = _number(self.file("cpuacct", "cpuacct.usage")) / _NS
        else:
            cpu_s = stat["usage_usec"] / _US
        return Usage(
            cpu_s=cpu_s,
            periods=stat.get("nr_periods", 0),
            throttled_periods=stat.get("nr_throttled", 0),
        )

    def memory(self) -> Memory:
        """Memory now, at its peak, and by kind."""
        stat = _pairs(self.file("memory", "memory.stat"))
        events = _pairs(self.file("memory", "memory.oom_control", "memory.events"))
        current = _number(self.file("memory", "memory.usage_in_bytes", "memory.current"))
        peak = _number(self.file("memory", "memory.max_usage_in_bytes", "memory.peak"))
        kinds = _KINDS_1 if self.version == 1 else _KINDS_2
        found = {kind: stat[kind] for kind in kinds if kind in stat}
        if self.version == 1:
            found["kernel"] = _number(self.file("memory", "memory.kmem.usage_in_bytes"))
            found["tcp"] = _number(self.file("memory", "memory.kmem.tcp.usage_in_bytes"))
            events["max"] = _number(self.file("memory", "memory.failcnt"))
        return Memory(
            current_bytes=current,
            peak_bytes=peak or current,  # version 2 has it since kernel 5.19
            kinds=found,
            limit_hits=events.get("max", 0),
            oom_kills=events.get("oom_kill", 0),
        )

    def file(self, controller: str, *names: str) -> Path:
        """A controller's file, under its name in version 1 and, where it differs, in version 2."""
        top = self.root / controller if self.version == 1 else self.root
        return top.joinpath(self.parent, self.name, *names[:1] if self.version == 1 else names[-1:])

    @property
    def burst(self) -> Path:
        """Where what may be saved up is limited."""
        return self.file("cpu", "cpu.cfs_burst_us", "cpu.max.burst")


@dataclass(frozen=True)
class Ungrouped(Group):
    """In place of a group where none can be made: a process and what it started, without limits.
    CPU time is counted in hundredths of a second; memory is not."""

    pid: int = 0

    def usage(self) -> Usage:
        """CPU time of those that live."""
        found = 0.0
        with suppress(psutil.NoSuchProcess):
            first = psutil.Process(self.pid)
            for each in (first, *first.children(recursive=True)):
                with suppress(psutil.NoSuchProcess):
                    found += each.cpu_times().user + each.cpu_times().system
        return Usage(cpu_s=found)

    def memory(self) -> Memory:
        """Nothing is known of it."""
        return Memory(current_bytes=0, peak_bytes=0, kinds={})


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


def of_process(pid: int, root: Path = ROOT, proc: Path = Path("/proc")) -> Group:
    """The group that a process is in, whoever put it there, to read; raises `Unavailable`."""
    try:
        lines = (proc / str(pid) / "cgroup").read_text().splitlines()
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
