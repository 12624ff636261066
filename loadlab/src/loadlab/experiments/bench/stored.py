"""Stored runs of the bench, the ablation and the ladder: one JSON file each, checked when read. A
figure that is in no stored run is in no document."""

import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Generic, Literal, TypeVar

import msgspec

from loadlab.experiments.runner import Experiment
from loadlab.record.cgroup import Limits, Memory, Usage
from loadlab.record.histogram import Spread
from loadlab.record.machine import Quiet

FORMAT = 1
Regime = Literal["saturated", "sparse"]
REGIMES: tuple[Regime, ...] = ("saturated", "sparse")
R = TypeVar("R")


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
    environment: dict[str, str] = {}
    """What of the server's environment the lab set."""
    figures: Figures | None = None
    reason: str = ""
    """Without figures: why."""


class Measured(Experiment[R], Generic[R], frozen=True, kw_only=True):
    """One invocation of the lab; its form is older than other experiments'."""

    format: int = FORMAT
    kind: str = msgspec.field(name="what")

    quick: bool = False
    """A smoke test: its figures say that the tool works, nothing about the servers."""

    @property
    def about(self) -> str:
        """Whether it is a smoke test, and the commit."""
        commit = self.fingerprint.commit[:8] or "nocommit"
        dirty = "-dirty" if self.fingerprint.dirty else ""
        return f"{'quick-' if self.quick else ''}{commit}{dirty}"


class Run(Measured[Round], frozen=True, kw_only=True):
    """Of bench, ablation or ladder; the seed orders the servers within each round, and draws the
    think times."""

    kind: Literal["bench", "ablate", "ladder"] = msgspec.field(name="what")
    quiet: Quiet
    loads: list[Load]
    rows: list[Round] = msgspec.field(name="rounds", default_factory=list)


def latest(folder: Path, what: str) -> Path | None:
    """The newest stored run of a kind that is no smoke test."""
    files = [file for file in sorted(folder.glob(f"*-{what}-*.json")) if "-quick-" not in file.name]
    return files[-1] if files else None


def figures(rounds: Iterable[Round], *, server: str, model: str, regime: str) -> list[Figures]:
    """All rounds of one cell that measured something."""
    wanted = (server, model, regime)
    mine = [each for each in rounds if (each.server, each.model, each.regime) == wanted]
    return [each.figures for each in mine if each.figures and each.figures.requests]


def median_cpu_us(measured: Sequence[Figures]) -> float | None:
    """The median over the rounds; None without any."""
    return statistics.median(each.cpu_us for each in measured) if measured else None
