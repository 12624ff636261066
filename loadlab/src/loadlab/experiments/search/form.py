"""A stored search: one JSON file, written whole after every probe, so that a killed search
continues where it was; and its reruns."""

import math
from pathlib import Path
from typing import Literal

import msgspec

from loadlab.experiments.search.axis import Judgement
from loadlab.record.machine import Fingerprint
from loadlab.record.store import read, stamp, write
from loadlab.verdict.figures import Figures

FORMAT = 1
Service = Literal["halfcore", "typical", "tuned", "onnx"]


class Goal(msgspec.Struct, frozen=True, kw_only=True):
    """Within what is searched, and how long a run is."""

    most_centicores: int
    """Hundredths of a core."""
    most_mib: int
    """Memory while the CPU limit is searched: enough, so that it decides nothing."""
    full_s: float
    """Steady state of the runs that count."""
    short_s: float
    """Of those that only find the way."""

    def steady_s(self, *, full: bool) -> float:
        """Steady state of a run."""
        return self.full_s if full else self.short_s


class Probe(msgspec.Struct, frozen=True, kw_only=True):
    """One load run."""

    centicores: int
    mib: int
    full: bool
    why: str
    """What the search wanted of it."""
    outcome: Judgement
    could_start: bool = True
    sentence: str = ""
    """The verdict's, or how the start failed."""
    run: str = ""
    """Of the load runs' history."""
    seconds: float
    """Everything, until the next probe may begin."""
    figures: Figures | None = None
    """None: the server did not start."""

    @property
    def cpus(self) -> float:
        """The CPU limit in cores."""
        return self.centicores / 100


class Search(msgspec.Struct, frozen=True, kw_only=True):
    """A search with all its probes, in order."""

    format: int = FORMAT
    started_at: str
    command: str
    """Of its first invocation."""
    service: Service
    tier: str
    """The source of the greatest limits and of the environment."""
    scenario: str
    users: int
    model: str
    engine: str
    seed: int
    goal: Goal
    fingerprint: Fingerprint
    probes: list[Probe] = []

    @property
    def minutes(self) -> float:
        """What all probes took."""
        return round(math.fsum(probe.seconds for probe in self.probes) / 60, 1)


class Rerun(msgspec.Struct, frozen=True, kw_only=True):
    """The minimum of a stored search, run again."""

    format: int = FORMAT
    of: str
    """Name of the search's file."""
    started_at: str
    command: str
    fingerprint: Fingerprint
    probes: list[Probe]
    """One, or two if the first was INVALID: the last one counts."""

    @property
    def outcome(self) -> Judgement:
        """Of the run that counts."""
        return self.probes[-1].outcome


def save(search: Search, file: Path) -> Path:
    """Write it, whole or not at all."""
    return write(search, file)


def name(search: Search) -> str:
    """Of the file that is kept: `<date>-<time>-search-<service>-<scenario>-<users>.json`."""
    return (
        f"{stamp(search.started_at)}-search-{search.service}-{search.scenario}-{search.users}.json"
    )


def load(file: Path) -> Search:
    """Read a stored search; raises `StoreError`."""
    return read(file, Search, FORMAT)


def save_rerun(rerun: Rerun, folder: Path) -> Path:
    """Write it as `<date>-<time>-rerun-<service>-<scenario>-<users>.json`, whole or not at all."""
    return write(
        rerun,
        folder
        / f"{stamp(rerun.started_at)}-rerun-{Path(rerun.of).stem.partition('-search-')[2]}.json",
    )


def load_rerun(file: Path) -> Rerun:
    """Read a stored rerun; raises `StoreError`."""
    return read(file, Rerun, FORMAT)
