"""Single readings of the machine, the network, a process; None: this kernel does not report it."""

import os
from pathlib import Path

from loadlab.record import machine
from loadlab.record.form import HostSample, ProcessSample

PROC = Path("/proc")
_HERTZ = os.sysconf("SC_CLK_TCK")


def host(proc: Path = PROC) -> HostSample:
    """CPU, pressure, swap and connection tracking of the whole machine."""
    cpu = machine.read_cpu(proc / "stat")
    return HostSample(
        busy_s=cpu.busy_s,
        steal_s=cpu.steal_s,
        total_s=cpu.total_s,
        pressure_s=_pressure_s(proc / "pressure/cpu"),
        swapped_pages=_swapped(proc / "vmstat"),
        conntrack=_number(proc / "sys/net/netfilter/nf_conntrack_count") or 0,
        conntrack_max=_number(proc / "sys/net/netfilter/nf_conntrack_max") or 0,
    )


def tcp(proc: Path = PROC) -> dict[str, int]:
    """All TCP counters of a network namespace: /proc/net/snmp and netstat, and TIME_WAIT from
    sockstat (`tw`).

    Args:
        proc: /proc, or /proc/PID for that process's namespace.
    """
    counters: dict[str, int] = {}
    for file in ("snmp", "netstat"):
        lines = (proc / "net" / file).read_text().splitlines()
        for names, values in zip(lines[::2], lines[1::2], strict=True):
            if names.startswith(("Tcp:", "TcpExt:")):
                counters |= dict(zip(names.split()[1:], map(int, values.split()[1:]), strict=True))
    for line in (proc / "net/sockstat").read_text().splitlines():
        fields = line.split()
        if fields[0] == "TCP:":
            counters["tw"] = int(fields[fields.index("tw") + 1])
    return counters


def process(pid: int, proc: Path = PROC) -> ProcessSample | None:
    """CPU time (user and system) and open files; None if the process is gone."""
    try:
        fields = (proc / str(pid) / "stat").read_text().rpartition(")")[2].split()
        folder = proc / str(pid) / "fd"
        # The size is the count since Linux 6.2; names are not needed
        files = folder.stat().st_size or len(os.listdir(folder))  # noqa: PTH208
    except OSError:
        return None
    return ProcessSample((int(fields[11]) + int(fields[12])) / _HERTZ, files)


def ports() -> int:
    """Ephemeral ports that this machine may use towards one address."""
    low, high = (PROC / "sys/net/ipv4/ip_local_port_range").read_text().split()
    return int(high) - int(low) + 1


def nofile(pid: int) -> int:
    """A process's soft limit on open files."""
    lines = (PROC / str(pid) / "limits").read_text().splitlines()
    text = next(line for line in lines if line.startswith("Max open files")).split()[3]
    return int(text) if text.isdecimal() else 1 << 30


def cpus(pid: int) -> list[int]:
    """CPUs that a process may run on."""
    return sorted(os.sched_getaffinity(pid))


def name(pid: int) -> str:
    """What a process is called; empty if it is gone."""
    try:
        return (PROC / str(pid) / "comm").read_text().strip()
    except OSError:
        return ""


def descendants(pid: int, proc: Path = PROC) -> list[int]:
    """A process and everything it started that still lives."""
    found = [pid]
    for parent in found:
        for children in (proc / str(parent) / "task").glob("*/children"):
            try:
                found += [int(child) for child in children.read_text().split()]
            except OSError:
                continue
    return found


def _pressure_s(file: Path) -> float | None:
    try:
        some = file.read_text().splitlines()[0]
    except (OSError, IndexError):
        return None
    return int(some.rpartition("total=")[2]) / 1e6


def _swapped(file: Path) -> int | None:
    try:
        fields = dict(line.split() for line in file.read_text().splitlines())
        return int(fields["pswpin"]) + int(fields["pswpout"])
    except (OSError, KeyError):
        return None


def _number(file: Path) -> int | None:
    try:
        return int(file.read_text())
    except OSError:
        return None
