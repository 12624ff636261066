"""Whether a CPU quota stops a process that is not the server's: its control group's, or that of any
group above it."""

from collections.abc import Iterable
from pathlib import Path

from loadlab.record.cgroup import ROOT

PROC = Path("/proc")


def throttled_periods(pids: Iterable[int], root: Path = ROOT, proc: Path = PROC) -> int:
    """Periods in which a quota stopped one of the groups that the processes are in, ever; 0 where
    no group has a quota.

    A container's processes see their own group as the top: what limits the container is counted
    too.
    """
    stats = {file for pid in pids for file in _stats(pid, root, proc)}
    return sum(_throttled(file) for file in sorted(stats))


def _stats(pid: int, root: Path, proc: Path) -> list[Path]:
    """The `cpu.stat` of every group from a process's own up to the top."""
    try:
        lines = (proc / str(pid) / "cgroup").read_text().splitlines()
    except OSError:  # gone
        return []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if "cpu" in controllers.split(","):  # version 1
            return _upwards(root / "cpu", path)
        if not controllers and (root / "cgroup.controllers").exists():  # version 2
            return _upwards(root, path)
    return []


def _upwards(top: Path, path: str) -> list[Path]:
    group = top / path.strip("/")
    return [
        folder / "cpu.stat"
        for folder in (group, *group.parents)
        if folder == top or top in folder.parents
    ]


def _throttled(file: Path) -> int:
    try:
        return sum(
            int(line.split()[1])
            for line in file.read_text().splitlines()
            if line.startswith("nr_throttled ")
        )
    except OSError:  # removed meanwhile, or a top without a quota
        return 0
