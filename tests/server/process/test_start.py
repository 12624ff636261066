"""The first second of a server: a signal must not be lost, though its imports take as long."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from support.bundles import write_bundle
from support.serving import free_port

TERM = 1 << (signal.SIGTERM - 1)


def until(holds: Callable[[], object], otherwise: str, timeout_s: float = 30.0) -> None:
    """Wait for a state."""
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.005)


def status(process: int, field: str) -> str:
    """A field of /proc/PID/status; empty if the process is gone."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return ""
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith(f"{field}:")), ""
    )


def child_of(process: int) -> int:
    """Its only child, or 0."""
    try:
        children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    except OSError:
        return 0
    return int(children[0]) if children else 0


def has_imported(process: int, library: str) -> bool:
    """Whether the process has that library in memory."""
    return library in Path(f"/proc/{process}/maps").read_text()


def is_listened_on(port: int) -> bool:
    """Whether a connection is accepted."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except OSError:
        return False
    return True


@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("unshare") is None,
    reason="making a process 1 needs root and unshare",
)
def test_process_1_ends_at_a_signal_before_it_has_loaded_anything(tmp_path: Path) -> None:
    """The kernel drops what process 1 does not handle: without a handler of its own it would go
    on."""
    write_bundle(tmp_path)
    environment = os.environ | {
        "HALFCORE_BUNDLES": str(tmp_path),
        "HALFCORE_PORT": str(free_port()),
    }
    command = ["unshare", "--pid", "--fork", sys.executable, "-m", "halfcore", "serve"]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as outer:
        until(lambda: child_of(outer.pid), "no process 1")
        first = child_of(outer.pid)
        until(
            lambda: int(status(first, "SigCgt") or "0", 16) & TERM,
            "process 1 does not handle SIGTERM",
        )
        assert status(first, "NSpid").split()[-1] == "1"
        assert not has_imported(first, "onnxruntime"), "the handler came after the imports"
        os.kill(first, signal.SIGTERM)
        assert outer.wait(30) == 128 + signal.SIGTERM
        assert outer.stderr is not None
        assert outer.stderr.read() == ""


def test_port_0_is_a_free_port_and_told(tmp_path: Path) -> None:
    """A server whose port nobody knows would be of no use."""
    write_bundle(tmp_path / "bundles")
    file = tmp_path / "address"
    environment = os.environ | {
        "HALFCORE_BUNDLES": str(tmp_path / "bundles"),
        "HALFCORE_PORT": "0",
        "HALFCORE_ADDRESS_FILE": str(file),
    }
    with subprocess.Popen([sys.executable, "-m", "halfcore", "serve"], env=environment) as process:
        try:
            until(file.exists, "no address")
            port = int(file.read_text().split()[0])
            until(lambda: is_listened_on(port), "nobody listens there")
        finally:
            process.terminate()
    assert port > 0
