"""What the machine is, how fast it is today, and whether it is quiet enough to measure on."""

import math
import os
import platform
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from pathlib import Path

import msgspec
import psutil

from loadlab.record import cgroup

_PACKAGES = (
    "halfcore",
    "granian",
    "litestar",
    "msgspec",
    "numpy",
    "onnxruntime",
    "orjson",
    "uvloop",
)
_SYSCTLS = (
    "net.core.somaxconn",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_congestion_control",
)
_MAX_BUSY_CORES = 0.15
_MAX_STEAL = 0.01
_BUSIEST = 3
"""Other processes that are named when the machine is busy."""
_SLICES, _SLICE_S = 10, 0.02
"""Short ones: the best of them is seldom disturbed."""
_TURNS = 10_000
"""Of the loop of Python, each time it is called."""
_REFERENCE = {"python_mops": 13.5, "syscalls_per_s": 5.8e6, "loopback_per_s": 190_000.0}
"""The reference machine, score 1.0: a virtual machine of 2 cores on an Intel Xeon at 2.1 GHz
(family 6, model 207), Linux 6.18, CPython 3.11.7. Million turns, calls, round trips a second."""


class Cpu(msgspec.Struct, frozen=True, kw_only=True):
    """CPU time of the whole machine since boot, seconds."""

    busy_s: float
    steal_s: float
    total_s: float

    def since(self, before: "Cpu") -> "Cpu":
        """What passed between two readings."""
        names = self.__struct_fields__
        return Cpu(**{name: getattr(self, name) - getattr(before, name) for name in names})


class Quiet(msgspec.Struct, frozen=True, kw_only=True):
    """How busy the machine was with others before the run."""

    busy_cores: float
    steal: float  # share of the time that the hypervisor gave to others
    reasons: list[str]  # why a measurement cannot be trusted; empty: it can


class Calibration(msgspec.Struct, frozen=True, kw_only=True):
    """How fast the machine was just before the run, while it was idle: the best of a few short
    slices each."""

    python_mops: float  # million turns of a loop of Python a second, one thread
    syscalls_per_s: float  # from Python (`getppid`)
    loopback_per_s: float
    """Round trips of one byte a second over one TCP connection, both ends in one thread: no
    scheduler's choice of CPUs is in it."""
    score: float  # geometric mean of the three over those of the reference machine, which has 1.0


class Fingerprint(msgspec.Struct, frozen=True, kw_only=True):
    """Machine, software and code of a run."""

    cpu: str
    cores: int
    memory_bytes: int
    kernel: str
    cgroup_version: int
    python: str
    packages: dict[str, str]
    baseline_packages: dict[str, str]
    commit: str
    dirty: bool
    nofile: int
    sysctls: dict[str, str]
    calibration: Calibration | None = None
    """Of experiments; a load run keeps its own outside, for fingerprints are compared."""

    @property
    def hardware(self) -> str:
        """Processor, cores and memory, in words."""
        return f"{self.cpu}, {self.cores} cores, {self.memory_bytes / 1e9:.0f} GB"

    @property
    def code(self) -> str:
        """The commit, and whether it is all that was measured."""
        changed = " with uncommitted changes" if self.dirty else ""
        return f"{self.commit[:12] or 'unknown'}{changed}"

    @property
    def checkout(self) -> str:
        """The same in Markdown."""
        return re.sub(r"^\w+", r"`\g<0>`", self.code)


def read_cpu() -> Cpu:
    """CPU time until now."""
    now = psutil.cpu_times()
    busy_s = math.fsum((now.user, now.nice, now.system, now.irq, now.softirq))
    total_s = busy_s + now.idle + now.iowait + now.steal
    return Cpu(busy_s=busy_s, steal_s=now.steal, total_s=total_s)


def usable_cpus() -> list[int]:
    """Those that this process may use: the machine's, or some of them by `taskset` or a cpuset."""
    return sorted(os.sched_getaffinity(0))


def watch(seconds: float = 2.0) -> Quiet:
    """Watch the machine while the lab does nothing, and judge."""
    used, before = _used_s(), read_cpu()
    time.sleep(seconds)
    passed = read_cpu().since(before)
    others = {who: cpu_s - used.get(who, 0.0) for who, cpu_s in _used_s().items()}
    busy_cores, steal = passed.busy_s / seconds, passed.steal_s / max(passed.total_s, 1e-9)
    reasons = []
    if busy_cores > _MAX_BUSY_CORES:
        busiest = sorted(others, key=others.__getitem__, reverse=True)[:_BUSIEST]
        named = ", ".join(
            f"{who.info['name']} ({who.pid}) {others[who] / seconds:.2f}"
            for who in busiest
            if others[who] > 0
        )
        limit = f"at most {_MAX_BUSY_CORES}"
        reasons.append(f"others use {busy_cores:.2f} cores ({limit}){named and f': {named}'}")
    if steal > _MAX_STEAL:
        reasons.append(f"the hypervisor steals {steal:.2%} (at most {_MAX_STEAL:.0%})")
    if len(usable_cpus()) < 2:
        reasons.append("one core: server and generator cannot be kept apart")
    return Quiet(busy_cores=busy_cores, steal=steal, reasons=reasons)


def _used_s() -> dict[psutil.Process, float]:
    """CPU seconds of every process but this one."""
    found = psutil.process_iter(["name", "cpu_times"])
    return {
        each: each.info["cpu_times"].user + each.info["cpu_times"].system
        for each in found
        if each.pid != os.getpid() and each.info["cpu_times"]
    }


def calibrate() -> Calibration:
    """Measure how fast the machine is; takes 0.6 s, and wants an idle machine."""
    found = {
        "python_mops": _best_hz(_python, 1) * _TURNS / 1e6,
        "syscalls_per_s": _best_hz(os.getppid, 1000),
        "loopback_per_s": _loopback_hz(),
    }
    logs = [math.log(found[name] / reference) for name, reference in _REFERENCE.items()]
    return Calibration(**found, score=round(math.exp(math.fsum(logs) / len(logs)), 3))


def _python() -> None:
    number = 1
    for _ in range(_TURNS):
        number = (number * 5 + 1) & 0xFFFF


def _loopback_hz() -> float:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        far, _ = listener.accept()
    with near, far:
        for end in (near, far):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def round_trip() -> None:
            near.send(b"x")
            far.send(far.recv(1))
            near.recv(1)

        return _best_hz(round_trip, 50)


def _best_hz(work: Callable[[], object], at_once: int) -> float:
    """How often a second something can be done, in the best slice; the clock is read every
    `at_once` times."""
    best = 0.0
    for _ in range(_SLICES):
        done, start = 0, time.perf_counter()
        while (passed := time.perf_counter() - start) < _SLICE_S:
            for _ in range(at_once):
                work()
            done += at_once
        best = max(best, done / passed)
    return best


def fingerprint(
    root: Path, baseline_packages: dict[str, str], nofile: int, *, cgroup_version: int | None = None
) -> Fingerprint:
    """Describe this machine and the checkout at `root`; `cgroup_version` is asked of the machine
    unless it is given."""
    model = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return Fingerprint(
        cpu=model[1] if model else platform.processor() or platform.machine(),
        cores=os.cpu_count() or 1,
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        kernel=platform.release(),
        cgroup_version=cgroup.version() if cgroup_version is None else cgroup_version,
        python=sys.version.split()[0],
        packages=versions(_PACKAGES),
        baseline_packages=baseline_packages,
        commit=git(root, "rev-parse", "HEAD"),
        dirty=bool(git(root, "status", "--porcelain")),
        nofile=nofile,
        sysctls={name: _sysctl(name) for name in _SYSCTLS},
    )


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Installed versions; what is not installed is left out."""
    found = {}
    for name in packages:
        with suppress(PackageNotFoundError):
            found[name] = installed_version(name)
    return found


def git(root: Path, *arguments: str) -> str:
    """What git says of a checkout; empty without git, or where it refuses."""
    try:
        done = subprocess.run(  # noqa: S603  our own words
            ["git", "-C", str(root), *arguments],  # noqa: S607
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:  # no git here
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _sysctl(name: str) -> str:
    file = Path("/proc/sys", *name.split("."))
    return " ".join(file.read_text().split()) if file.exists() else ""
