"""What the machine is, and whether it is quiet enough to measure on."""

import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from pathlib import Path

import msgspec

from loadlab.record import cgroup

PACKAGES = (
    "halfcore",
    "granian",
    "litestar",
    "msgspec",
    "numpy",
    "onnxruntime",
    "orjson",
    "uvloop",
)
MAX_BUSY_CORES = 0.15
MAX_STEAL = 0.01
_HERTZ = os.sysconf("SC_CLK_TCK")


class Cpu(msgspec.Struct, frozen=True, kw_only=True):
    """CPU time of the whole machine since boot, seconds."""

    busy_s: float
    steal_s: float
    total_s: float

    def since(self, before: "Cpu") -> "Cpu":
        """What passed between two readings."""
        return Cpu(
            busy_s=self.busy_s - before.busy_s,
            steal_s=self.steal_s - before.steal_s,
            total_s=self.total_s - before.total_s,
        )


class Quiet(msgspec.Struct, frozen=True, kw_only=True):
    """How busy the machine was with others before the run."""

    load_1m: float
    busy_cores: float
    steal: float
    """Share of the time that the hypervisor gave to others."""
    reasons: list[str]
    """Why a measurement cannot be trusted; empty: it can."""


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

    @property
    def hardware(self) -> str:
        """Processor, cores and memory, in words."""
        return f"{self.cpu}, {self.cores} cores, {self.memory_bytes / 1e9:.0f} GB"

    @property
    def checkout(self) -> str:
        """The commit in Markdown, and whether it is all that was measured."""
        return (
            f"`{self.commit[:12] or 'unknown'}`{' with uncommitted changes' if self.dirty else ''}"
        )


def read_cpu(file: Path = Path("/proc/stat")) -> Cpu:
    """The first line of /proc/stat."""
    user, nice, system, idle, iowait, irq, softirq, steal = (
        int(field) / _HERTZ for field in file.read_text().split()[1:9]
    )
    busy = user + nice + system + irq + softirq
    return Cpu(busy_s=busy, steal_s=steal, total_s=busy + idle + iowait + steal)


def watch(seconds: float = 2.0) -> Quiet:
    """Watch the machine while the lab does nothing, and judge."""
    before = read_cpu()
    time.sleep(seconds)
    passed = read_cpu().since(before)
    busy_cores, steal = passed.busy_s / seconds, passed.steal_s / max(passed.total_s, 1e-9)
    reasons = []
    if busy_cores > MAX_BUSY_CORES:
        reasons.append(f"others use {busy_cores:.2f} cores (at most {MAX_BUSY_CORES})")
    if steal > MAX_STEAL:
        reasons.append(f"the hypervisor steals {steal:.1%} (at most {MAX_STEAL:.0%})")
    if (os.cpu_count() or 1) < 2:
        reasons.append("one core: server and generator cannot be kept apart")
    return Quiet(load_1m=os.getloadavg()[0], busy_cores=busy_cores, steal=steal, reasons=reasons)


_SYSCTLS = (
    "net.core.somaxconn",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_congestion_control",
)


def fingerprint(
    root: Path, baseline_packages: dict[str, str], nofile: int, *, cgroup_version: int | None = None
) -> Fingerprint:
    """Describe this machine and the checkout at `root`; `cgroup_version` is asked of the machine
    unless it is given."""
    return Fingerprint(
        cpu=_field(Path("/proc/cpuinfo"), "model name")
        or platform.processor()
        or platform.machine(),
        cores=os.cpu_count() or 1,
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        kernel=platform.release(),
        cgroup_version=cgroup.version() if cgroup_version is None else cgroup_version,
        python=sys.version.split()[0],
        packages=versions(PACKAGES),
        baseline_packages=baseline_packages,
        commit=_git(root, "rev-parse", "HEAD"),
        dirty=bool(_git(root, "status", "--porcelain")),
        nofile=nofile,
        sysctls={name: _sysctl(name) for name in _SYSCTLS},
    )


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Installed versions; what is not installed is left out."""
    found = {}
    for name in packages:
        try:
            found[name] = installed_version(name)
        except PackageNotFoundError:
            continue
    return found


def _field(file: Path, name: str) -> str:
    lines = file.read_text().splitlines() if file.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(name)), "")


def _git(root: Path, *arguments: str) -> str:
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
