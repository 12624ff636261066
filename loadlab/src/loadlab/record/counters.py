"""Readings of the machine, the network and a process. None: this kernel does not report it."""

import os
import socket
import struct
from collections.abc import Iterable
from pathlib import Path

from loadlab.record import cgroup, machine
from loadlab.record.cgroup import ROOT
from loadlab.record.schema import HostSample, ProcessSample

PROC = Path("/proc")
_HERTZ = os.sysconf("SC_CLK_TCK")
_NETLINK_SOCK_DIAG = 4
_BY_FAMILY, _DUMP, _DONE, _ERROR = 20, 0x301, 3, 2
_ESTABLISHED = 1
_HEADER = struct.Struct("=IHHII")
_REQUEST = struct.Struct("=BBBBI")
_ID = struct.Struct("=2s2s16s16sIQ")
_RECEIVE_BYTES = 1 << 16


def host() -> HostSample:
    """CPU, pressure, swap and connection tracking of the whole machine."""
    cpu = machine.read_cpu()
    pressure = _lines(PROC / "pressure/cpu")
    paged = dict(line.split() for line in _lines(PROC / "vmstat"))
    tracked, most = (
        _lines(PROC / f"sys/net/netfilter/nf_conntrack_{each}") for each in ("count", "max")
    )
    return HostSample(
        busy_s=cpu.busy_s,
        steal_s=cpu.steal_s,
        total_s=cpu.total_s,
        pressure_s=int(pressure[0].rpartition("total=")[2]) / 1e6 if pressure else None,
        swapped_pages=int(paged["pswpin"]) + int(paged["pswpout"]) if "pswpin" in paged else None,
        conntrack=int(tracked[0]) if tracked else 0,
        conntrack_max=int(most[0]) if most else 0,
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


def established(port: int) -> int:
    """Established TCP connections of this network namespace whose other end is `port`, asked of
    the kernel directly (sock_diag, as `ss` does): exact, and a few milliseconds for 10,000; raises
    `OSError` where the kernel does not report them."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as kernel:
        kernel.settimeout(2.0)
        return sum(_count(kernel, family, port) for family in (socket.AF_INET, socket.AF_INET6))


def _count(kernel: socket.socket, family: int, port: int) -> int:
    which = _ID.pack(bytes(2), port.to_bytes(2, "big"), bytes(16), bytes(16), 0, (1 << 64) - 1)
    request = _REQUEST.pack(family, socket.IPPROTO_TCP, 0, 0, 1 << _ESTABLISHED) + which
    kernel.send(_HEADER.pack(_HEADER.size + len(request), _BY_FAMILY, _DUMP, 1, 0) + request)
    found = 0
    while True:
        data = kernel.recv(_RECEIVE_BYTES)
        at = 0
        while at < len(data):
            length, kind = struct.unpack_from("=IH", data, at)
            if kind == _DONE:
                return found
            if kind == _ERROR:
                code = -struct.unpack_from("=i", data, at + _HEADER.size)[0]
                raise OSError(f"sock_diag: error {code}")
            found += kind == _BY_FAMILY
            at += (length + 3) & ~3


def throttled_periods(pids: Iterable[int], root: Path = ROOT, proc: Path = PROC) -> int:
    """Periods in which a quota stopped one of the groups that the processes are in, or a group
    above it, ever; 0 where no group has a quota.

    A container's processes see their own group as the top: what limits the container is counted
    too.
    """
    stats = {file for pid in pids for file in _cpu_stats(pid, root, proc)}
    return sum(
        int(line.split()[1])
        for file in stats  # removed meanwhile, or a top without a quota: has no such line
        for line in _lines(file)
        if line.startswith("nr_throttled ")
    )


def _cpu_stats(pid: int, root: Path, proc: Path) -> list[Path]:
    """The `cpu.stat` of every group from a process's own up to the top."""
    try:
        own = cgroup.of_process(pid, root, proc).file("cpu")
    except cgroup.Unavailable:
        return []
    return [folder / "cpu.stat" for folder in (own, *own.parents) if folder.is_relative_to(root)]


def _lines(file: Path) -> list[str]:
    """Of a file of the kernel; none if this kernel does not have it, or the process is gone."""
    try:
        return file.read_text().splitlines()
    except OSError:
        return []
