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
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import msgspec
from rich.console import Console

from loadlab.experiments import runner
from loadlab.experiments.bench.command import PATHS, Option, measured, names
from loadlab.experiments.bench.stored import Measured
from loadlab.experiments.bench.subjects import OURS, Place
from loadlab.generator.http import RESET_ON_CLOSE, Client
from loadlab.generator.plan import raise_open_files
from loadlab.record import machine
from loadlab.record.cgroup import Limits
from loadlab.target import programs
from loadlab.target.process import Running, free_port, running
from loadlab.target.programs import Case

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


class Memory(Measured[Held], frozen=True, kw_only=True):
    """A stored run."""

    kind: Literal["memory"] = msgspec.field(name="what", default="memory")
    seed: int = 0
    """Nothing is drawn."""
    rows: list[Held] = msgspec.field(name="held", default_factory=list)


OPTIONS: tuple[Option, ...] = (
    ("--models", names, "iris,cover-middle", "the first also with connections"),
    ("--connections", int, 10_000, "open connections"),
    *PATHS,
)


def main(asked: argparse.Namespace, root: Path, console: Console) -> Path:
    """Measure and store; returns the file.

    Raises:
        CaseError, CannotStart, Unavailable, PlanError, OSError: see there.
    """
    cases = [programs.case(asked.bundles, name) for name in asked.models]
    nofile = raise_open_files(asked.connections)
    fresh = Memory(
        started_at=runner.now(),
        command=" ".join(["loadlab", *sys.argv[1:]]),
        fingerprint=machine.fingerprint(root, {}, nofile),
    )
    cells = [(case, asked.connections if case is cases[0] else 0) for case in cases]
    one = partial(_measure, root)
    run = measured(fresh, cells, one, lambda cell: cell[0].model, root, console)
    return runner.save(run, asked.store)


def _measure(root: Path, cell: tuple[Case, int]) -> Held:
    case, connections = cell
    with TemporaryDirectory(prefix="loadlab-") as scratch:
        alone, port = programs.hold(case, Path(scratch)), free_port()
        command = OURS.command(Place(root, "", Path(scratch)), alone, port)
        with running("memory", command, port=port, limits=Limits()) as server:
            before, usage, start = server.group.memory(), server.group.usage(), time.monotonic()
            time.sleep(REST_S)
            rested = server.group.usage().since(usage).cpu_s / (time.monotonic() - start)
            return Held(
                model=case.model,
                file=(case.bundle / "model.onnx").stat().st_size,
                at_rest=before.current_bytes,
                peak=before.peak_bytes,
                resident=_resident(server.process.pid),
                cpu=rested,
                connections=connections,
                connected=_connected(server, case.body, connections) if connections else None,
            )


def _connected(server: Running, body: str, count: int) -> int:
    with ExitStack() as stack:
        clients = [Client("127.0.0.1", server.port) for _ in range(count)]
        for client in clients:
            stack.callback(client.close)
            client.connect().setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        for _ in range(ASKED):
            for client in clients:
                if (status := client.ask(body)[0]) != 200:
                    raise OSError(f"the server's status is {status}, expected 200")
        return server.group.memory().current_bytes


def _resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
