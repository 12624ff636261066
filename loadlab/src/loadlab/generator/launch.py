"""Who makes the load: which processes, on which CPUs; and each as the lab sees it: a process, a
file that grows by a line a second and worker, and a file to steer by."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from loadlab.generator import plan
from loadlab.generator.ledger import Tick
from loadlab.generator.plan import Load, Steer
from loadlab.record.schema import Role, Workers
from loadlab.record.store import write

Cpus = frozenset[int]
_WEB_PORT = 8089
_MASTER_PORT = 5557
_LOOPBACK = "127.0.0.1"
_LOCUSTFILE = "loadlab/locustfile.py"
_LOAD, _TICKS, _STEER = "load.json", "ticks.jsonl", "steer.json"
_STOP_TIMEOUT_S = 15.0
_LAST_LINES = 3
_SPARE_FILES = 512


@dataclass(frozen=True)
class Part:
    """One process of a generator."""

    name: str
    """Key of its samples: master, worker-1, …"""
    role: Role
    command: Sequence[str]
    cpus: Cpus = frozenset()
    """CPUs that it is held to; empty: any."""
    nice: int = 0


def raw(folder: Path, cpus: Cpus) -> list[Part]:
    """The one process of the epoll engine."""
    files = [str(folder / name) for name in (_LOAD, _TICKS, _STEER)]
    command = [sys.executable, "-m", "loadlab.generator.engine", *files]
    return [Part("raw", "generator", command, cpus)]


def locust(
    root: Path,
    folder: Path,
    load: Load,
    *,
    user: str,
    cpus: list[Cpus],
    others: Cpus,
    web: bool,
    listen: str = "",
) -> list[Part]:
    """Locust's master, and one worker of this machine for each set of CPUs; the load's other
    workers come from elsewhere.

    Args:
        user: kind of the user class.
        others: CPUs for the master, which has little to do.
        web: show Locust's page.
        listen: address for workers on other machines; they expect the master on Locust's port.
    """
    with socket.socket() as probe:
        probe.bind((_LOOPBACK, 0))
        port = _MASTER_PORT if listen else probe.getsockname()[1]
    common = [sys.executable, "-m", "locust", "-f", str(root / _LOCUSTFILE)]
    common += ["--loglevel", "WARNING", "--user", user]
    address, page = (
        listen or _LOOPBACK,
        f"--web-host {_LOOPBACK} --web-port {_WEB_PORT} --autostart",
    )
    of_master = (
        f"--master --master-bind-host {address} --master-bind-port {port} "
        f"--expect-workers {load.workers} --users {load.users} --spawn-rate {load.rate:g} "
        f"--stop-timeout 5 {page if web else '--headless --only-summary'}"
    )
    master = [*common, *of_master.split()]
    for option, name in (("--load", _LOAD), ("--ticks", _TICKS), ("--steer", _STEER)):
        master += [option, str(folder / name)]
    worker = [*common, "--worker", "--master-host", address, "--master-port", str(port)]
    return [
        Part("master", "lab", master, others, nice=5),
        *(Part(f"worker-{n}", "generator", worker, held) for n, held in enumerate(cpus, 1)),
    ]


class Generator:
    """Running processes of a generator; made by `generating`."""

    def __init__(self, folder: Path, parts: Sequence[Part]) -> None:
        self.folder, self.parts = folder, parts
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._ticks, self._offset = folder / _TICKS, 0
        self._decoder = msgspec.json.Decoder(Tick)
        self._ticks.touch()

    def start(self, part: Part) -> None:
        """Start one process; what it says goes to a file of its name."""
        with (self.folder / f"{part.name}.log").open("ab") as log:
            self.processes[part.name] = subprocess.Popen(  # noqa: S603  commands of the lab
                ["nice", "-n", str(part.nice), *part.command] if part.nice else part.command,
                env={**os.environ, "LOADLAB_PARENT": str(os.getpid())},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        if part.cpus:
            os.sched_setaffinity(self.processes[part.name].pid, part.cpus)

    def ticks(self) -> list[Tick]:
        """What has been counted since the last call, whole lines only."""
        with self._ticks.open("rb") as file:
            file.seek(self._offset)
            lines = file.read().split(b"\n")[:-1]
        self._offset += sum(len(line) + 1 for line in lines)
        return [self._decoder.decode(line) for line in lines]

    def steer(self, wanted: Steer) -> None:
        """Order what the generator does from now on; it obeys within 0.2 s."""
        write(wanted, self.folder / _STEER)

    def workers(self) -> Workers | None:
        """What Locust's master said last of its workers; None for the raw engine."""
        file = self._ticks.with_suffix(".workers")
        return msgspec.json.decode(file.read_bytes(), type=Workers) if file.exists() else None

    def broken(self) -> str:
        """Which process ended that should not have, with its last words; empty: none."""
        for name, process in self.processes.items():
            if process.poll() is not None:
                text = (self.folder / f"{name}.log").read_text(errors="replace")
                lines = [line.strip() for line in text.splitlines()[-_LAST_LINES:]]
                return f"{name} ended with {process.returncode}: {' | '.join(lines) or 'no output'}"
        return ""

    def lost(self) -> str:
        """How many of Locust's workers do not report any more; empty: none."""
        found = self.workers()
        if found is None or not found.missing:
            return ""
        return (
            f"{found.missing} of {found.expected} Locust workers ended or cannot be reached; look "
            "at the output of `just load-worker` on the other machines"
        )

    def stop(self) -> None:
        """Ask the first process to end (Locust's master ends its workers), wait, kill the rest."""
        deadline = time.monotonic() + _STOP_TIMEOUT_S
        for process in self.processes.values():
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            try:
                process.wait(max(deadline - time.monotonic(), 0.1))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def kill(self) -> None:
        """End everything at once."""
        for process in self.processes.values():
            process.kill()
        for process in self.processes.values():
            process.wait()


@contextmanager
def generating(folder: Path, load: Load, parts: Sequence[Part]) -> Iterator[Generator]:
    """Start a generator's processes, Locust's master first, and end them, whatever happens.
    `folder` is made, for their files; `load` is written there. Raises `PlanError`: too few open
    files allowed."""
    folder.mkdir(parents=True, exist_ok=True)
    write(load, folder / _LOAD)
    plan.raise_open_files(load.users, _SPARE_FILES)
    generator = Generator(folder, parts)
    try:
        for part in parts:
            generator.start(part)
        yield generator
        generator.stop()
    finally:
        generator.kill()


def witnessing(folder: Path, load: Load) -> AbstractContextManager[Generator]:
    """Start the witness, process `witness`, and end it; as `generating`."""
    files = [str(folder / name) for name in (_LOAD, _TICKS)]
    command = [sys.executable, "-m", "loadlab.generator.witness", *files]
    return generating(folder, load, [Part("witness", "witness", command)])
