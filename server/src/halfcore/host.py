"""The limits of this process (CPU quota, memory, open files), read from the kernel, and calls that
adapt the process to them.

Supports control groups v1 and v2. A limit may be set on the group itself or on any group above it;
the tightest counts.
"""

import ctypes
import gc
import os
import resource
import signal
import stat
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

GARBAGE_THRESHOLD = 20_000
"""Objects made, less those freed, between two runs of the garbage collector."""
GRANIAN_MEMORY = ("_RJEM_MALLOC_CONF", "dirty_decay_ms:1000")
"""Environment variable and value that make granian's allocator, jemalloc, return freed memory to
the kernel within about a second. By default it keeps it for ten, in which a server near its limit
must refuse requests. This costs no CPU time that can be measured; with 0, a request does."""
_ROOT = Path("/sys/fs/cgroup")
_PR_SET_PDEATHSIG = 1
_V1_UNLIMITED = 1 << 60
"""Version 1 writes "no limit" as the largest multiple of a page; any value near it is no limit."""


def cpu_quota(root: Path = _ROOT, membership: Path = Path("/proc/self/cgroup")) -> float | None:
    """Cores' worth of CPU time that this process may use per period; None if nothing limits it."""
    quotas = [_quota(group) for group in _groups("cpu", root, membership)]
    return min((quota for quota in quotas if quota is not None), default=None)


class Throttling(NamedTuple):
    """What a CPU quota has done so far."""

    periods: int
    """Periods in which the group wanted to run."""
    throttled_periods: int
    """Those in which it used up the quota and had to wait for the next."""
    throttled_s: float
    """Seconds that its threads waited so."""


def throttling(
    root: Path = _ROOT, membership: Path = Path("/proc/self/cgroup")
) -> Throttling | None:
    """What the tightest CPU quota of this process has done so far; None if nothing limits it."""
    limited = [
        (quota, group)
        for group in _groups("cpu", root, membership)
        if (quota := _quota(group)) is not None
    ]
    if not limited:
        return None
    _, group = min(limited)
    stat = dict(line.split() for line in (_read(group / "cpu.stat") or "").splitlines())
    # Version 1 counts nanoseconds under another name
    waited_s = int(stat.get("throttled_usec", 0)) / 1e6 + int(stat.get("throttled_time", 0)) / 1e9
    return Throttling(int(stat.get("nr_periods", 0)), int(stat.get("nr_throttled", 0)), waited_s)


def memory_limit(root: Path = _ROOT, membership: Path = Path("/proc/self/cgroup")) -> int | None:
    """Bytes of memory that this process's group may use; None if nothing limits it."""
    files = [
        group / name
        for group in _groups("memory", root, membership)
        for name in ("memory.max", "memory.limit_in_bytes")
    ]
    limits = [int(text) for file in files if (text := _read(file)) and text != "max"]
    return min((limit for limit in limits if limit < _V1_UNLIMITED), default=None)


def memory() -> int:
    """Bytes of memory of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def memory_left(root: Path = _ROOT, membership: Path = Path("/proc/self/cgroup")) -> int | None:
    """Bytes that this process's group may still use; pages of files that can be dropped count as
    free. None if nothing limits it."""
    left = []
    for group in _groups("memory", root, membership):
        limit = _read(group / "memory.max") or _read(group / "memory.limit_in_bytes") or "max"
        # Most groups have no limit, and this is read twice a second: no further file is opened.
        if limit == "max" or int(limit) >= _V1_UNLIMITED:
            continue
        used = _read(group / "memory.current") or _read(group / "memory.usage_in_bytes")
        if used is not None:
            left.append(int(limit) - int(used) + _droppable(group))
    return min(left, default=None)


def memory_kills(root: Path = _ROOT, membership: Path = Path("/proc/self/cgroup")) -> int:
    """How many processes of this one's group the kernel has killed because memory was short; 0 if
    it does not say."""
    for group in _groups("memory", root, membership):
        text = _read(group / "memory.events") or _read(group / "memory.oom_control")
        if text is not None:
            return int(dict(line.split() for line in text.splitlines()).get("oom_kill", 0))
    return 0


def open_files(wanted: int) -> int:
    """Raise the limit on open files towards `wanted`, as far as permitted; return the new limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        return most
    return wanted if soft == resource.RLIM_INFINITY else soft


def not_writable(directory: Path) -> str:
    """Why this process cannot write to a directory, which need not exist yet, and what to do; empty
    if it can."""
    there = next(
        path
        for path in (directory.absolute(), *directory.absolute().parents)
        if os.path.lexists(path)
    )
    if os.access(there, os.W_OK | os.X_OK):
        return ""
    if os.statvfs(there).f_flag & os.ST_RDONLY:
        return f"{there} is read-only; mount a volume there"
    status = there.stat()
    return (
        f"user {os.geteuid()}, who runs this server, may not write to {there} "
        f"(mode {stat.S_IMODE(status.st_mode):04o}, owner {status.st_uid}); mount a volume there, "
        "or let that user write"
    )


def quietest_cpu(sample_s: float = 0.05) -> int:
    """Of the CPUs that this process may run on, the one that was idle longest during the sample."""
    allowed = os.sched_getaffinity(0)
    before = _idle_ticks()
    time.sleep(sample_s)
    after = _idle_ticks()
    return max(allowed, key=lambda cpu: after.get(cpu, 0) - before.get(cpu, 0))


def pin(cpu: int) -> None:
    """Run this thread, and every thread it starts from now on, on one CPU."""
    os.sched_setaffinity(0, {cpu})


def schedule_as_batch() -> None:
    """Make this thread, and every thread it starts from now on, not preempt others when woken."""
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def die_with(parent: int) -> None:
    """Make the kernel kill this process when its parent dies, however it dies: an orphan would keep
    the port and continue to answer.

    Args:
        parent: process id; if it is no longer this process's parent, it died before this call.
    """
    # SIGKILL: while a worker starts, SIGTERM would be lost in its supervisor's inherited handler or
    # in a loop that does not run yet.
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        raise SystemExit(1)


def give_back_memory() -> None:
    """Return freed heap pages to the kernel, if the C library is glibc."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def return_memory_soon() -> None:
    """Make granian return freed memory sooner; call it before granian is imported. A value that is
    already in the environment counts."""
    os.environ.setdefault(*GRANIAN_MEMORY)


def settle_memory() -> None:
    """Keep the garbage collector away from what lives as long as the process, and return what
    loading has freed."""
    gc.collect()
    gc.freeze()
    # Requests in progress are many short-lived objects without cycles: at the default of 700 each
    # batch would be searched.
    gc.set_threshold(GARBAGE_THRESHOLD)
    # The runtime frees some five bytes per byte of a tree ensemble's file once it is loaded, and
    # glibc keeps them.
    give_back_memory()


def be_background() -> None:
    """Make this thread yield the CPU to the process's others; on Linux each thread has its own
    niceness."""
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)


def _quota(group: Path) -> float | None:
    """A group's own CPU quota in cores."""
    if (text := _read(group / "cpu.max")) and not text.startswith("max"):
        quota, period = text.split()
        return int(quota) / int(period)
    if (text := _read(group / "cpu.cfs_quota_us")) and int(text) > 0:
        return int(text) / int(_read(group / "cpu.cfs_period_us") or 100_000)
    return None


def _droppable(group: Path) -> int:
    """Bytes of file pages that the kernel drops when the group needs memory."""
    stat = dict(line.split() for line in (_read(group / "memory.stat") or "").splitlines())
    return int(stat.get("total_inactive_file") or stat.get("inactive_file") or 0)


def _groups(controller: str, root: Path, membership: Path) -> list[Path]:
    """The directories of this process's groups for a controller, innermost first, up to the visible
    root."""
    for line in (_read(membership) or "").splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0" and (root / "cgroup.controllers").exists():
            return _upwards(root, path)
        if controller in controllers.split(","):
            return _upwards(root / controller, path)
    return []


def _upwards(root: Path, path: str) -> list[Path]:
    # In a container the path is often the host's, which is not visible here: then the root is the
    # container's own group.
    inside = root / path.strip("/")
    return [inside, *(parent for parent in inside.parents if parent.is_relative_to(root))]


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None


def _idle_ticks() -> dict[int, int]:
    """Clock ticks that each CPU was idle or waiting for a disk since boot."""
    ticks = {}
    for line in (_read(Path("/proc/stat")) or "").splitlines():
        name, *values = line.split()
        if name.startswith("cpu") and name[3:].isdecimal():
            ticks[int(name[3:])] = int(values[3]) + int(values[4])
    return ticks
