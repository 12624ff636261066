"""Stored runs: one JSON file each, written whole, checked when read. A figure that is in no stored
run is in no document."""

import os
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, Protocol, TypeVar

import msgspec

from loadlab.record.histogram import Spread
from loadlab.record.machine import Fingerprint, Quiet
from loadlab.target.cgroup import Limits, Memory, Usage

FORMAT = 1
Regime = Literal["saturated", "sparse"]
REGIMES: tuple[Regime, ...] = ("saturated", "sparse")


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked of every server in one regime."""

    regime: Regime
    connections: int
    seconds: float
    warmup_s: float
    timeout_s: float
    limits: Limits
    server_cpus: str
    """CPUs that the server was held to; empty: all."""
    rate: float = 500.0
    """sparse: connections opened per second."""
    think_s: tuple[float, float] = (4.0, 9.0)
    rows: Literal["one", "golden"] = "one"
    """saturated: one row asked again and again, or all of the bundle's golden rows in turn."""


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """What one round measured, in its window."""

    requests: int
    seconds: float
    failures: dict[str, int]
    failures_before: dict[str, int]
    """From the first connection to the window's start."""
    usage: Usage
    memory: Memory
    response: Spread
    lag: Spread
    client_cpu: int
    """The CPU that the client was held to."""
    client_cores: float
    foreign_cores: float
    """CPU time of everything but server, client and what works for the server, per second."""
    steal: float
    doubts: list[str]
    """What makes this round less than trustworthy: a busy generator, others on the machine."""
    helper_cores: float = msgspec.field(default=0.0, name="beside_cores")
    """CPU time of the database that the server logs into, per second; not charged to the server."""

    @property
    def cpu_us(self) -> float:
        """The server's CPU time per right answer, microseconds."""
        return self.usage.cpu_s / self.requests * 1e6

    @property
    def failed(self) -> int:
        """Failures from the first connection on."""
        return sum(self.failures.values()) + sum(self.failures_before.values())


class Round(msgspec.Struct, frozen=True, kw_only=True):
    """One server measured once, or why it could not be."""

    server: str
    model: str
    regime: Regime
    number: int
    environment: dict[str, str]
    """What of the server's environment the lab set."""
    figures: Figures | None
    reason: str = ""
    """Without figures: why."""


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One invocation of the lab."""

    format: int
    what: Literal["bench", "ablate", "ladder"]
    started_at: str
    """UTC, ISO 8601."""
    minutes: float
    command: str
    seed: int
    """Orders the servers within each round, and draws the think times."""
    quick: bool
    """A smoke test: its figures say that the tool works, nothing about the servers."""
    fingerprint: Fingerprint
    quiet: Quiet
    loads: list[Load]
    rounds: list[Round]


class StoreError(ValueError):
    """A stored run cannot be read; the message names the file and the field."""


class Stored(Protocol):
    """What is kept as one JSON file."""

    @property
    def format(self) -> int:
        """Number of the form, for later readers."""


S = TypeVar("S", bound=Stored)


def stamp(started_at: str) -> str:
    """A date and time in ISO 8601 as file names begin."""
    return started_at[:19].replace(":", "").replace("T", "-")


def name(started_at: str, what: str, fingerprint: Fingerprint) -> str:
    """Of the file that keeps a run of one commit."""
    commit = fingerprint.commit[:8] or "nocommit"
    return f"{stamp(started_at)}-{what}-{commit}{'-dirty' if fingerprint.dirty else ''}.json"


def write(kept: msgspec.Struct, file: Path) -> Path:
    """Write a file, whole or not at all; makes its folder."""
    file.parent.mkdir(parents=True, exist_ok=True)
    written = file.with_name(f".{file.name}")
    written.write_bytes(msgspec.json.format(msgspec.json.encode(kept), indent=1) + b"\n")
    os.replace(written, file)  # noqa: PTH105  atomic, as its name does not say
    return file


def read(file: Path, kind: type[S], form: int) -> S:
    """Read a file that `write` wrote; raises `StoreError`."""
    try:
        found = msgspec.json.decode(file.read_bytes(), type=kind)
    except (OSError, msgspec.DecodeError) as error:
        raise StoreError(f"{file}: {error}") from None
    if found.format != form:
        raise StoreError(f"{file}: format is {found.format}, expected {form}")
    return found


def save(run: Run, folder: Path) -> Path:
    """Write a run under `<date>-<time>-<what>-<commit>.json`, whole or not at all."""
    what = f"{run.what}{'-quick' if run.quick else ''}"
    return write(run, folder / name(run.started_at, what, run.fingerprint))


def load(file: Path) -> Run:
    """Read a stored run; raises `StoreError`."""
    return read(file, Run, FORMAT)


def latest(folder: Path, what: str) -> Path | None:
    """The newest stored run of a kind that is no smoke test."""
    files = [file for file in sorted(folder.glob(f"*-{what}-*.json")) if "-quick-" not in file.name]
    return files[-1] if files else None


def figures(rounds: Iterable[Round], *, server: str, model: str, regime: str) -> list[Figures]:
    """All rounds of one cell that measured something."""
    wanted = (server, model, regime)
    return [
        each.figures
        for each in rounds
        if each.figures
        and each.figures.requests
        and (each.server, each.model, each.regime) == wanted
    ]


def median_cpu_us(measured: Sequence[Figures]) -> float | None:
    """The median over the rounds; None without any."""
    return statistics.median(each.cpu_us for each in measured) if measured else None
