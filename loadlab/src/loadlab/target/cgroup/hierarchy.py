"""The files of control groups, version 1 and 2.

Source: the kernel's Documentation/admin-guide/cgroup-v1 and cgroup-v2.rst. Version 1 does not count
socket buffers as memory, version 2 does: the same memory limit is stricter there.
"""

import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import msgspec

ROOT = Path("/sys/fs/cgroup")
PARENT = "halfcore-lab"
"""Our parent group; all groups of the lab are its children."""

PERIOD_US = 100_000
"""The quota's period, microseconds: Docker's and Kubernetes's default, so that a limit here is the
limit that users know."""

_NS, _US = 1e9, 1e6
_UNLIMITED = 1 << 60


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
    user_s: float
    system_s: float
    periods: int = 0
    throttled_periods: int = 0
    throttled_s: float = 0.0

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


class Hierarchy(Protocol):
    """Where one version of control groups keeps its files."""

    version: int

    def create(self, name: str, limits: Limits) -> None:
        """Make the group with its limits; raises `Unavailable`."""

    def remove(self, name: str) -> None:
        """Remove the empty group, and our parent if it is empty too."""

    def procs(self, name: str) -> list[Path]:
        """The files into which a process writes its id to join."""

    def limits(self, name: str) -> Limits:
        """What is in force, read back."""

    def usage(self, name: str) -> Usage:
        """See `Group.usage`."""

    def memory(self, name: str) -> Memory:
        """See `Group.memory`."""


def detect(root: Path = ROOT) -> Hierarchy:
    """The version in use, where this process may make groups; raises `Unavailable` with the
    reason."""
    if not root.is_dir():
        raise Unavailable(
            f"no control groups: {root} does not exist (Linux only; inside a container mount it)"
        )
    if os.geteuid() != 0:
        raise Unavailable("making control groups needs root: run as root, or use containers")
    if (root / "cgroup.controllers").exists():
        return V2(root)
    if all((root / controller).is_dir() for controller in V1.controllers):
        return V1(root)
    raise Unavailable(
        f"{root} has neither version 2 nor the version 1 controllers {', '.join(V1.controllers)}"
    )


class V1:
    """One directory per controller."""

    version = 1
    controllers = ("cpu", "cpuacct", "memory")

    def __init__(self, root: Path, parent: str = PARENT) -> None:
        self._root, self._parent = root, parent

    def create(self, name: str, limits: Limits) -> None:
        """Make the group in each controller."""
        for controller in self.controllers:
            _make(self._path(controller, name))
        if limits.quota_us is not None:
            _write(self._path("cpu", name) / "cpu.cfs_period_us", limits.period_us)
            _write(self._path("cpu", name) / "cpu.cfs_quota_us", limits.quota_us)
            if limits.burst_us:
                _write_burst(self._path("cpu", name) / "cpu.cfs_burst_us", limits.burst_us)
        if limits.memory_bytes is not None:
            _write(self._path("memory", name) / "memory.limit_in_bytes", limits.memory_bytes)
            with suppress(Unavailable):  # no swap accounting: then there is no swap to limit either
                _write(
                    self._path("memory", name) / "memory.memsw.limit_in_bytes", limits.memory_bytes
                )

    def remove(self, name: str) -> None:
        """Remove the group from each controller."""
        for controller in self.controllers:
            _remove(self._path(controller, name))

    def procs(self, name: str) -> list[Path]:
        """One file per controller."""
        return [self._path(controller, name) / "cgroup.procs" for controller in self.controllers]

    def limits(self, name: str) -> Limits:
        """From the quota's files; no limit is written as -1, or as a number near 2^63."""
        folder = self._path("cpu", name)
        quota, memory = (
            _number(folder / "cpu.cfs_quota_us"),
            _number(self._path("memory", name) / "memory.limit_in_bytes"),
        )
        return _limits(
            quota if quota > 0 else None,
            _number(folder / "cpu.cfs_period_us"),
            burst_us=_number(folder / "cpu.cfs_burst_us"),
            memory_bytes=memory if memory < _UNLIMITED else None,
        )

    def usage(self, name: str) -> Usage:
        """From cpuacct (nanoseconds) and cpu.stat."""
        account = self._path("cpuacct", name)
        stat = _pairs(self._path("cpu", name) / "cpu.stat")
        return Usage(
            cpu_s=_number(account / "cpuacct.usage") / _NS,
            user_s=_number(account / "cpuacct.usage_user") / _NS,
            system_s=_number(account / "cpuacct.usage_sys") / _NS,
            periods=stat.get("nr_periods", 0),
            throttled_periods=stat.get("nr_throttled", 0),
            throttled_s=stat.get("throttled_time", 0) / _NS,
        )

    def memory(self, name: str) -> Memory:
        """From memory.stat and its neighbours."""
        folder = self._path("memory", name)
        stat = _pairs(folder / "memory.stat")
        return Memory(
            current_bytes=_number(folder / "memory.usage_in_bytes"),
            peak_bytes=_number(folder / "memory.max_usage_in_bytes"),
            kinds={
                kind: stat[kind]
                for kind in ("rss", "cache", "mapped_file", "shmem")
                if kind in stat
            }
            | {
                "kernel": _number(folder / "memory.kmem.usage_in_bytes"),
                "tcp": _number(folder / "memory.kmem.tcp.usage_in_bytes"),
            },
            limit_hits=_number(folder / "memory.failcnt"),
            oom_kills=_pairs(folder / "memory.oom_control").get("oom_kill", 0),
        )

    def _path(self, controller: str, name: str) -> Path:
        return self._root / controller / self._parent / name


class V2:
    """One directory for all controllers."""

    version = 2
    _kinds = ("anon", "file", "kernel", "sock", "shmem", "slab", "kernel_stack", "pagetables")

    def __init__(self, root: Path, parent: str = PARENT) -> None:
        self._root, self._parent = root, parent

    def create(self, name: str, limits: Limits) -> None:
        """Make the group; the controllers are switched on for our parent and its children."""
        _delegate(self._root)
        _make(self._root / self._parent)
        _delegate(self._root / self._parent)
        folder = self._root / self._parent / name
        _make(folder)
        if limits.quota_us is not None:
            _write(folder / "cpu.max", f"{limits.quota_us} {limits.period_us}")
            if limits.burst_us:
                _write_burst(folder / "cpu.max.burst", limits.burst_us)
        if limits.memory_bytes is not None:
            _write(folder / "memory.max", limits.memory_bytes)
            with suppress(Unavailable):  # a kernel without swap
                _write(folder / "memory.swap.max", 0)

    def remove(self, name: str) -> None:
        """Remove the group."""
        _remove(self._root / self._parent / name)

    def procs(self, name: str) -> list[Path]:
        """One file."""
        return [self._root / self._parent / name / "cgroup.procs"]

    def limits(self, name: str) -> Limits:
        """From cpu.max and memory.max; no limit is written as max."""
        folder = self._root / self._parent / name
        quota, period = (folder / "cpu.max").read_text().split()
        memory = (folder / "memory.max").read_text().strip()
        return _limits(
            int(quota) if quota != "max" else None,
            int(period),
            burst_us=_number(folder / "cpu.max.burst"),
            memory_bytes=int(memory) if memory != "max" else None,
        )

    def usage(self, name: str) -> Usage:
        """From cpu.stat (microseconds)."""
        stat = _pairs(self._root / self._parent / name / "cpu.stat")
        return Usage(
            cpu_s=stat["usage_usec"] / _US,
            user_s=stat["user_usec"] / _US,
            system_s=stat["system_usec"] / _US,
            periods=stat.get("nr_periods", 0),
            throttled_periods=stat.get("nr_throttled", 0),
            throttled_s=stat.get("throttled_usec", 0) / _US,
        )

    def memory(self, name: str) -> Memory:
        """From memory.stat and its neighbours; memory.peak exists since kernel 5.19."""
        folder = self._root / self._parent / name
        stat, events = _pairs(folder / "memory.stat"), _pairs(folder / "memory.events")
        current = _number(folder / "memory.current")
        return Memory(
            current_bytes=current,
            peak_bytes=_number(folder / "memory.peak")
            if (folder / "memory.peak").exists()
            else current,
            kinds={kind: stat[kind] for kind in self._kinds if kind in stat},
            limit_hits=events.get("max", 0),
            oom_kills=events.get("oom_kill", 0),
        )


def _delegate(folder: Path) -> None:
    """Let a folder's children have the CPU and memory controllers; nothing is written where they
    have."""
    switched_on = (folder / "cgroup.subtree_control").read_text().split()
    if missing := [controller for controller in ("cpu", "memory") if controller not in switched_on]:
        _write(
            folder / "cgroup.subtree_control", " ".join(f"+{controller}" for controller in missing)
        )


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


def _write_burst(file: Path, burst_us: int) -> None:
    """Kernels have it since 5.14, where they were built with it."""
    if not file.exists():
        raise Unavailable(f"this kernel has no quota that can be saved up: {file.name} is missing")
    _write(file, burst_us)


def _limits(
    quota_us: int | None, period_us: int, *, burst_us: int, memory_bytes: int | None
) -> Limits:
    """As they would have been asked for: without a quota there is neither period nor burst."""
    if quota_us is None:
        return Limits(memory_bytes=memory_bytes)
    return Limits(
        cpus=quota_us / period_us, memory_bytes=memory_bytes, period_us=period_us, burst_us=burst_us
    )


def _number(file: Path) -> int:
    try:
        return int(file.read_text())
    except FileNotFoundError:  # a kernel built without it
        return 0


def _pairs(file: Path) -> dict[str, int]:
    return {
        key: int(value) for key, value in (line.split() for line in file.read_text().splitlines())
    }
