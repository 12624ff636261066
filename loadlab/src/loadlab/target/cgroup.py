"""Control groups made by hand: a process in its own limits, and what it used.

Theory of operation: `group` makes a directory under a parent of ours, writes the limits, and
removes it at the end, whatever happened; it never touches a group that it did not make. A process
enters it by the command of `Group.wrap`, and what it used is read by `loadlab.record.cgroup`.
"""

import itertools
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from loadlab.record.cgroup import ROOT, Group, Limits, Unavailable, find, of_process, version

__all__ = ["Group", "Unavailable", "create", "find", "group", "of_process", "version"]

_REMOVE_TIMEOUT_S = 10.0
_numbers = itertools.count(1)


@contextmanager
def group(label: str, limits: Limits | None = None, root: Path = ROOT) -> Iterator[Group]:
    """Make a group, and remove it with every process that is still inside.

    Its name ends with `label`: letters, digits and hyphens. Without limits it only counts. Raises
    `Unavailable`: not root, no control groups, or the kernel refused; says which.
    """
    made = Group(f"{os.getpid()}-{next(_numbers)}-{label}", version(root), root)
    try:
        create(made, limits or Limits())
        yield made
    finally:
        _remove(made)


def create(group: Group, limits: Limits) -> None:
    """Make the group with its limits; raises `Unavailable`."""
    if group.version != 1:
        _delegate(group.root)
        _make(group.root / group.parent)
        _delegate(group.root / group.parent)
    for folder in group.folders():
        _make(folder)
    if limits.quota_us is not None and group.version == 1:
        _write(group.file("cpu", "cpu.cfs_period_us"), limits.period_us)
        _write(group.file("cpu", "cpu.cfs_quota_us"), limits.quota_us)
    elif limits.quota_us is not None:
        _write(group.file("cpu", "cpu.max"), f"{limits.quota_us} {limits.period_us}")
    if limits.quota_us is not None and limits.burst_us:
        if not group.burst.exists():  # since 5.14, where the kernel was built with it
            lacks = f"{group.burst.name} is missing"
            raise Unavailable(f"this kernel has no quota that can be saved up: {lacks}")
        _write(group.burst, limits.burst_us)
    if limits.memory_bytes is not None:
        _write(group.file("memory", "memory.limit_in_bytes", "memory.max"), limits.memory_bytes)
        swap = group.file("memory", "memory.memsw.limit_in_bytes", "memory.swap.max")
        with suppress(Unavailable):  # no swap accounting: then there is no swap to limit either
            # Version 1 limits memory and swap together
            _write(swap, limits.memory_bytes if group.version == 1 else 0)


def _remove(group: Group) -> None:
    """Kill what is still inside (only what we started can be there), then remove the group, and
    our parent if it is empty too."""
    deadline = time.monotonic() + _REMOVE_TIMEOUT_S
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
