"""Hosts made of network namespaces: a lab and load generators with their own addresses, and links
that may delay and lose packets. Needs root."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

LAB_ADDRESS = "10.77.0.1"
_NAMED = Path("/run/netns")


@dataclass
class Host:
    """One namespace.

    Args:
        name: of the namespace.
        address: of the host, as the others see it.
    """

    name: str
    address: str
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def inside(self, *command: str) -> list[str]:
        """The command as it runs in this host; mounts stay as they are."""
        return ["nsenter", f"--net={_NAMED / self.name}", *command]

    def start(self, *command: str, **environment: str) -> subprocess.Popen[str]:
        """Run a command in this host until `hosts` ends."""
        process = subprocess.Popen(
            self.inside(*command),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, **environment},
            start_new_session=True,
        )
        self.started.append(process)
        return process

    def stop(self) -> None:
        """End what was started here."""
        for process in self.started:
            if process.poll() is None:
                os.killpg(process.pid, 15)
                process.communicate(timeout=60)


def missing() -> str:
    """Why no hosts can be made here; empty: they can."""
    if os.geteuid():
        return "needs root"
    tools = [tool for tool in ("ip", "nsenter") if not shutil.which(tool)]
    if tools:
        return f"needs {', '.join(tools)}"
    return "" if Path("/dev/net/tun").exists() else "needs /dev/net/tun"


@contextmanager
def hosts(count: int, *, delay_ms: float = 0.0, loss: float = 0.0) -> Iterator[list[Host]]:
    """The lab's host and so many others, each with a link to the lab's.

    Args:
        delay_ms: that every packet takes in each direction.
        loss: share of the packets that are lost.
    """
    mark = f"hc{os.getpid() % 10_000}"
    lab = Host(f"{mark}-lab", LAB_ADDRESS)
    others = [Host(f"{mark}-{n}", f"10.77.{n}.2") for n in range(1, count + 1)]
    with ExitStack() as stack:
        for host in (lab, *others):
            _ip("netns", "add", host.name)
            stack.callback(_ip, "netns", "del", host.name)
            _in(host, "link", "set", "lo", "up")
        _in(lab, "addr", "add", f"{LAB_ADDRESS}/32", "dev", "lo")
        for number, host in enumerate(others, 1):
            _link(stack, lab, host, number, delay_ms, loss)
        for host in (*others, lab):
            stack.callback(host.stop)
        yield [lab, *others]


def _link(
    stack: ExitStack, lab: Host, host: Host, number: int, delay_ms: float, loss: float
) -> None:
    """Connect two hosts by a process that passes packets on; addresses and routes."""
    here, there = f"to{number}", "uplink"
    words = [lab.name, here, host.name, there, str(delay_ms), str(loss), str(number)]
    pump = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("link.py")), *words],
        stdout=subprocess.PIPE,
        text=True,
    )
    stack.callback(pump.wait)
    stack.callback(pump.terminate)
    assert pump.stdout is not None
    assert pump.stdout.readline() == "ready\n"
    stack.callback(pump.stdout.close)
    for end, device, own, peer in (
        (lab, here, f"10.77.{number}.1", host.address),
        (host, there, host.address, f"10.77.{number}.1"),
    ):
        _in(end, "addr", "add", own, "peer", peer, "dev", device)
        _in(end, "link", "set", device, "up")
    _in(host, "route", "add", "default", "via", f"10.77.{number}.1")


def _in(host: Host, *words: str) -> None:
    _ip("-n", host.name, *words)


def _ip(*words: str) -> None:
    for _ in range(20):  # a namespace is busy for a moment after its last process has ended
        done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return
        time.sleep(0.05)
    raise RuntimeError(f"ip {' '.join(words)}: {done.stderr.strip()}")
