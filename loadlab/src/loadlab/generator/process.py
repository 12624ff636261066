"""A generator as the lab sees it: processes, a file that grows by a line a second and worker, and a
file to steer by."""

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from loadlab.generator import steer
from loadlab.generator.ledger import Tick
from loadlab.generator.plan import Load
from loadlab.generator.steer import Steer, Workers
from loadlab.record.schema import Role

_STOP_TIMEOUT_S = 15.0
_LAST_LINES = 3


class GeneratorFailed(RuntimeError):
    """The generator could not start, or broke; a fault of the lab or the machine, not of the
    server."""


class TickFile:
    """Follows a file of ticks that another process appends to.

    Args:
        file: is made, so that it can be read at once.
    """

    def __init__(self, file: Path) -> None:
        self._file, self._offset = file, 0
        self._decoder = msgspec.json.Decoder(Tick)
        file.touch()

    def read(self) -> list[Tick]:
        """What was appended since the last call, whole lines only."""
        with self._file.open("rb") as file:
            file.seek(self._offset)
            lines = file.read().split(b"\n")[:-1]
        self._offset += sum(len(line) + 1 for line in lines)
        return [self._decoder.decode(line) for line in lines]


@dataclass(frozen=True)
class Part:
    """One process of a generator."""

    name: str
    """Key of its samples: master, worker-1, …"""
    role: Role
    command: Sequence[str]
    cpus: frozenset[int]
    """CPUs that it is held to."""
    nice: int = 0


class Generator:
    """Running processes of a generator; made by `generating`."""

    def __init__(self, folder: Path, parts: Sequence[Part]) -> None:
        self.folder, self.parts = folder, parts
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._ticks = TickFile(ticks_file(folder))

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
        """What has been counted since the last call."""
        return self._ticks.read()

    def steer(self, wanted: Steer) -> None:
        """Order what the generator does from now on; it obeys within 0.2 s."""
        steer.write(steer_file(self.folder), wanted)

    def workers(self) -> Workers | None:
        """What Locust's master said last of its workers; None for the raw engine."""
        file = ticks_file(self.folder).with_suffix(".workers")
        return msgspec.json.decode(file.read_bytes(), type=Workers) if file.exists() else None

    def broken(self) -> str:
        """Which process ended that should not have, with its last words; empty: none."""
        for name, process in self.processes.items():
            if process.poll() is not None:
                return f"{name} ended with {process.returncode}: {self._last_words(name)}"
        return ""

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
            if process.poll() is None:
                process.kill()
        for process in self.processes.values():
            process.wait()

    def _last_words(self, name: str) -> str:
        lines = (self.folder / f"{name}.log").read_text(errors="replace").splitlines()
        return " | ".join(line.strip() for line in lines[-_LAST_LINES:]) or "no output"


def ticks_file(folder: Path) -> Path:
    """Where ticks are appended."""
    return folder / "ticks.jsonl"


def steer_file(folder: Path) -> Path:
    """The file with the lab's orders."""
    return folder / "steer.json"


@contextmanager
def generating(folder: Path, load: Load, parts: Sequence[Part]) -> Iterator[Generator]:
    """Start a generator's processes, and end them, whatever happens.

    Args:
        folder: for its files; is made.
        load: is written there as `load.json`.
        parts: Locust's master first.

    Raises:
        GeneratorFailed: too few open files allowed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    load_file(folder).write_bytes(msgspec.json.encode(load))
    _raise_open_files(load.users)
    generator = Generator(folder, parts)
    try:
        for part in parts:
            generator.start(part)
        yield generator
        generator.stop()
    finally:
        generator.kill()


def load_file(folder: Path) -> Path:
    """The file with the plan."""
    return folder / "load.json"


def python() -> str:
    """The interpreter that the generators run on."""
    return sys.executable


def _raise_open_files(users: int) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = users + 512
    if hard < needed:
        raise GeneratorFailed(
            f"{users} users need {needed} open files; the hard limit is {hard} (ulimit -Hn, or "
            "LimitNOFILE)"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
