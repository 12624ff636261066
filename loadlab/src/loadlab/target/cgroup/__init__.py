"""Control groups made by hand: a process in its own limits, and what it used.

Theory of operation: `group` makes a directory under a parent of ours, writes the limits, and
removes it at the end, whatever happened; it never touches a group that it did not make.
`Group.wrap` gives a command that joins the group first and then becomes the process, so that not
one instruction of it runs outside. `Usage` and `Memory` are the kernel's own counts, of all
processes in the group together.

Version 1 (one directory per controller) and version 2 (one directory) are detected in
`hierarchy`.
"""

import itertools
import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from loadlab.target.cgroup.hierarchy import (
    PARENT,
    PERIOD_US,
    ROOT,
    V1,
    V2,
    Hierarchy,
    Limits,
    Memory,
    Unavailable,
    Usage,
    detect,
)

__all__ = [
    "PERIOD_US",
    "ROOT",
    "Group",
    "Limits",
    "Memory",
    "Unavailable",
    "Usage",
    "find",
    "group",
    "of_process",
    "version",
]

_JOIN = 'while [ "$1" != -- ]; do echo $$ > "$1" || exit 126; shift; done; shift; exec "$@"'
"""Write the shell's own id into each file, then become the command: same id, nothing forked."""

_REMOVE_TIMEOUT_S = 10.0
_numbers = itertools.count(1)


@dataclass(frozen=True)
class Group:
    """One existing control group, by its name under our parent."""

    name: str
    hierarchy: Hierarchy

    def wrap(self, command: Sequence[str]) -> list[str]:
        """The command that joins this group and then executes `command` under the same process
        id."""
        return [
            "/bin/sh",
            "-c",
            _JOIN,
            "join",
            *map(str, self.hierarchy.procs(self.name)),
            "--",
            *command,
        ]

    def limits(self) -> Limits:
        """Limits in force, as the kernel says them."""
        return self.hierarchy.limits(self.name)

    def usage(self) -> Usage:
        """CPU time and throttling since the group was made."""
        return self.hierarchy.usage(self.name)

    def memory(self) -> Memory:
        """Memory now, at its peak, and by kind."""
        return self.hierarchy.memory(self.name)

    def processes(self) -> list[int]:
        """Ids of the processes inside."""
        return [int(line) for line in self.hierarchy.procs(self.name)[0].read_text().split()]


def version(root: Path = ROOT) -> int:
    """1 or 2; raises `Unavailable` with the reason when groups cannot be made here."""
    return detect(root).version


def find(name: str, root: Path = ROOT) -> Group:
    """An existing group, to read from another process; raises `Unavailable` if there is none."""
    hierarchy = detect(root)
    if not hierarchy.procs(name)[0].exists():
        raise Unavailable(f"no control group {PARENT}/{name}")
    return Group(name, hierarchy)


def of_process(pid: int, root: Path = ROOT) -> Group:
    """The group that a container engine put a process into, to read; raises
    `Unavailable`."""
    try:
        lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    except OSError:
        raise Unavailable(f"process {pid} is gone") from None
    paths = {
        controller: path
        for _, controllers, path in (line.split(":", 2) for line in lines)
        for controller in controllers.split(",")
    }
    if (root / "cgroup.controllers").exists():
        return Group(paths[""].strip("/"), V2(root, ""))
    if "cpuacct" not in paths:
        raise Unavailable(f"process {pid} is in no control group that counts CPU time")
    return Group(paths["cpuacct"].strip("/"), V1(root, ""))


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
    hierarchy = detect(root)
    made = Group(f"{os.getpid()}-{next(_numbers)}-{label}", hierarchy)
    try:
        hierarchy.create(made.name, limits or Limits())
        yield made
    finally:
        _empty(made)
        hierarchy.remove(made.name)


def _empty(group: Group) -> None:
    """Kill what is still inside; only what we started can be there."""
    deadline = time.monotonic() + _REMOVE_TIMEOUT_S
    with suppress(FileNotFoundError):
        while (left := group.processes()) and time.monotonic() < deadline:
            for pid in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)
