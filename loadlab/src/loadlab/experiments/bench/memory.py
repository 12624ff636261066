"""`loadlab memory`: what a server holds at rest, while it loads, and with many quiet connections,
and uses at rest; for docs/operations.md.

Measured is what the kernel charges to a control group without limits. No answer is timed, so it
needs no quiet machine.
"""

import argparse
import os
import socket
import sys
import time
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import msgspec

from loadlab.experiments.bench import cases
from loadlab.experiments.bench.subjects import OURS, Place
from loadlab.generator.http import RESET_ON_CLOSE, Asker
from loadlab.generator.plan import raise_open_files
from loadlab.record import machine
from loadlab.record.machine import Fingerprint
from loadlab.record.store import FORMAT, name, read, write
from loadlab.target.cgroup import Limits
from loadlab.target.process import Running, free_port, running

REST_S = 30.0
"""Seconds of rest over which CPU time is counted."""
ASKED = 3
"""Times that each connection asks, one after another, before it is quiet."""


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """One model's server; bytes."""

    model: str
    file: int
    """Of model.onnx."""
    at_rest: int
    """Ready, no connection."""
    peak: int
    """Until then."""
    resident: int
    """RSS at rest, which counts the pages of shared libraries that are charged to others."""
    cpu: float | None = None
    """Share of a core that is used at rest; None in runs that did not measure it."""
    connections: int
    connected: int | None
    """With that many connections, each answered `ASKED` times and then quiet."""


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """A stored run."""

    format: int
    what: Literal["memory"] = "memory"
    started_at: str
    command: str
    fingerprint: Fingerprint
    held: list[Held]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `loadlab memory`."""
    parser.add_argument(
        "--models",
        default="iris,cover-middle",
        help="the first also with connections (default: %(default)s)",
    )
    parser.add_argument(
        "--connections", type=int, default=10_000, help="open connections (default: %(default)s)"
    )
    parser.add_argument(
        "--bundles",
        type=Path,
        default=Path(".halfcore/bundles"),
        help="folder of the bundles (default: %(default)s)",
    )
    parser.add_argument(
        "--store",
        type=Path,
        default=Path("docs/runs"),
        help="where runs are stored (default: %(default)s)",
    )


def main(asked: argparse.Namespace, root: Path) -> Path:
    """Measure and store; returns the file.

    Raises:
        CaseError, CannotStart, Unavailable, PlanError, OSError: see there.
    """
    names = [name for name in asked.models.split(",") if name]
    chosen = [cases.case(asked.bundles, name) for name in names]
    nofile = raise_open_files(asked.connections)
    held = [_measure(case, root, asked.connections if case is chosen[0] else 0) for case in chosen]
    run = Memory(
        format=FORMAT,
        started_at=f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
        command=" ".join(["loadlab", *sys.argv[1:]]),
        fingerprint=machine.fingerprint(root, {}, nofile),
        held=held,
    )
    return save(run, asked.store)


def save(run: Memory, folder: Path) -> Path:
    """Write a run under `<date>-<time>-memory-<commit>.json`."""
    return write(run, folder / name(run.started_at, "memory", run.fingerprint))


def load(file: Path) -> Memory:
    """Read a stored run; raises `StoreError`."""
    return read(file, Memory, FORMAT)


def _measure(case: cases.Case, root: Path, connections: int) -> Held:
    with TemporaryDirectory(prefix="loadlab-") as scratch:
        alone, port = cases.hold(case, Path(scratch)), free_port()
        command = OURS.start(Place(root, "", Path(scratch)), alone, port)
        with running("memory", command, port=port, limits=Limits()) as server:
            before = server.group.memory()
            cpu = _at_rest(server)
            return Held(
                model=case.model,
                file=(case.bundle / "model.onnx").stat().st_size,
                at_rest=before.current_bytes,
                peak=before.peak_bytes,
                resident=_resident(server.process.pid),
                cpu=cpu,
                connections=connections,
                connected=_with_connections(server, case.body, connections)
                if connections
                else None,
            )


def _at_rest(server: Running) -> float:
    before, start = server.group.usage(), time.monotonic()
    time.sleep(REST_S)
    return server.group.usage().since(before).cpu_s / (time.monotonic() - start)


def _with_connections(server: Running, body: str, count: int) -> int:
    with ExitStack() as stack:
        askers = [Asker("127.0.0.1", server.port) for _ in range(count)]
        for asker in askers:
            stack.callback(asker.close)
            asker.connect().setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        for _ in range(ASKED):
            for asker in askers:
                if (status := asker.ask(body)[0]) != 200:
                    raise OSError(f"the server's status is {status}, expected 200")
        return server.group.memory().current_bytes


def _resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
